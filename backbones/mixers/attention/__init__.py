"""Softmax attention with other queries: nonlinear, linear residual, identity, normalised."""
