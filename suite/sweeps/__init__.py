"""Sweeps: which runs a board needs, and running them."""
