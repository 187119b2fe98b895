"""Checks of the store of runs: what is found, whether it is right, and what to do."""
