"""Sweeps on a Ray cluster. Ray is imported when one is started or joined."""
