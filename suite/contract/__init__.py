"""The mixer contract as named checks. `suite.check` runs them; every module here holds the checks of one concern."""
