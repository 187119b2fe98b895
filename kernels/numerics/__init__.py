"""Numerical helpers that several kernels share."""
