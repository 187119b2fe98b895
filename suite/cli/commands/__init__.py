"""The commands, a function each. Heavy imports stand inside them, so that `suite --help` answers at once."""
