"""Archives: a study's results in one file, and the join of results from several machines."""

ENDING = ".study.zip"
"""The end of an archive's file name."""
