"""This package inside other people's programs; each folder needs its program to be installed."""
