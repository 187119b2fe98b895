"""The mixer contract as named checks, usable without the suite. `run` runs them; every other module holds the checks of
one concern.
"""
