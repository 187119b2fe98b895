"""Where data come from and where they are kept: caches, the Hugging Face hub, users' files."""
