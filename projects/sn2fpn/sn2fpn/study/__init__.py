"""Controlled comparisons of feature pyramids.

A study file names what is compared. Every variant is trained with every seed by the same trainer, and each such pair is
called a cell. Measurements and a report follow once the cells are trained.
"""
