"""Commands that show boards and runs."""
