"""Controlled comparisons: a study file -> cells trained one like the other -> measurements and a report."""
