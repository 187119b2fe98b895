"""Where data come from and where they are stored: users' files, the Hugging Face hub, the cache."""
