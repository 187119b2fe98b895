"""Synthetic recall tasks: MQAR and MAD."""
