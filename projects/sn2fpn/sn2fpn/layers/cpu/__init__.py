"""Kernels for the CPU, one per file, in place of library operators that are slow or missing there.

Each file's head says when its kernel is taken and why. The caller named there chooses between the kernel and the plain
operator by the device of its input. `tests/layers/cpu` compares every kernel with the plain operator.
"""
