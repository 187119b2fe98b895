"""Baselines: models without exchangeable mixers."""
