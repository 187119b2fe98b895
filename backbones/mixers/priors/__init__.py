"""Priors: weights that sum to 1, as mixers of their own and as host priors of the Free Energy Mixer."""
