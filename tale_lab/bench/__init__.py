"""The benchmark: methods, the record of a graded answer, and the report."""
