"""The results file: every answered call and every finished result, in one SQLite file."""
