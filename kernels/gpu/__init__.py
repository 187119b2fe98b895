"""Triton kernels, forward and backward, beside the PyTorch ones of the same names. Import a module of it only where
Triton is to run.
"""
