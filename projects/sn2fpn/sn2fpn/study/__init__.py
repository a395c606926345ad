"""Controlled studies: cells, measurements, results, the report."""
