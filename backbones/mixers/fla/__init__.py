"""Layers of flash-linear-attention, an optional package."""
