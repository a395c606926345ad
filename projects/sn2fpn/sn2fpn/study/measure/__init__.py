"""Measuring: cost, speed, results as a table, and the statistics of differences."""
