"""Compiled forms of scans for CPUs, in C++: built at first use, kept, and announced; without a compiler PyTorch's forms
run, visibly.
"""
