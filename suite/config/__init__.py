"""What decides a run's result: RunConfig, recipes, hybrid layouts."""
