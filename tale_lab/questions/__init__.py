"""Questions with known answers: data sets, graders, and reading an answer from a model's prose."""
