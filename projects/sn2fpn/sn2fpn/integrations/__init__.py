"""This package inside other programs. Each folder needs its program to be installed."""
