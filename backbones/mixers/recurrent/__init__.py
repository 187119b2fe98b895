"""Recurrent layers: sums with decays that no normaliser makes weights of."""
