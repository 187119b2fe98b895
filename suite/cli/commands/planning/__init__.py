"""`suite plan` and how it shows what it planned."""
