"""The matrix products of the compiled kernels."""
