"""Triton kernels, forward and backward, with the names and arguments of the public functions.

Import a module of this package only where Triton is to run.
"""
