"""Trunks and the two-stage detector."""
