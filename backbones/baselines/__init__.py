"""Baselines: models that are not backbones of mixers."""
