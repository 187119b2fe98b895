"""Simulated boards with known truth: does the whole procedure hold its error rates? Run as a script, outside CI."""
