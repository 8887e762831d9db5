"""How a question is asked under a budget: strategies, and the worked examples that one of them uses."""
