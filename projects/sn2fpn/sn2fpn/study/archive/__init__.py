"""Archives: a study's results in one file, and the join of results from several machines."""
