"""Kernels for the CPU, one per file, in place of library operators that are slow or missing there.

Each file's head says when its kernel is taken and why. Every kernel has one caller, which chooses between it and the
plain operator by the device; `tests/layers/cpu` holds the two to equal results.
"""
