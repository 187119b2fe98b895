"""Training: one run from config to record."""
