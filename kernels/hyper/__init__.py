"""Lag mixing: the attention of HyperMLP and HyperGLU."""
