"""HyperMLP and HyperGLU (arXiv 2602.12601)."""
