"""The columns of boards."""
