"""The mixer contract as named checks, usable without the suite: `run` runs them, `probe` is what a check works with."""
