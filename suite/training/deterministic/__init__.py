"""Runs that give the same bits again: PyTorch's deterministic algorithms, seeds, and a check that they suffice."""
