"""The sequence mixers and their one registry."""
