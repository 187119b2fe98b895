"""Published claims, and what the records of this project show about each."""
