"""From a config to a model: resolving options, sizing to the budget, building."""
