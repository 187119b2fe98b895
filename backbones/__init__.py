"""Backbones whose every layer takes its mixer from one registry: a decoder, a vision transformer, a forecaster."""
