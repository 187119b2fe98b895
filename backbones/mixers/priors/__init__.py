"""Priors: weights that sum to 1, used alone as mixers and as host priors of the Free Energy Mixer."""
