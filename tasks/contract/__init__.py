"""The task contract as named checks, usable without the suite. `run` runs them; the other modules hold the checks, one
module per concern.
"""
