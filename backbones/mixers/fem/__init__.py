"""The Free Energy Mixer (arXiv 2602.07160) on each host prior."""
