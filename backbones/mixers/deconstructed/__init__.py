"""Deconstructed attention (arXiv 2510.11602): softmax attention relaxed one principle at a time."""
