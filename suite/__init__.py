"""Mixer Suite: which sequence mixer is really better, at equal cost?"""

__version__ = "0.1.0"
