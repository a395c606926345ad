"""The formats of data sets: one reader for each, which returns data set dicts."""
