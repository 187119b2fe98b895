"""Backbones with an exchangeable mixer in every layer: a decoder, a vision transformer, a forecaster."""
