"""Running many questions over one model: the runner, its engines and its limits."""
