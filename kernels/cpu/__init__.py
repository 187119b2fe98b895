"""Kernels for CPUs in C++, built at first use. Without a compiler PyTorch runs instead, after a warning."""
