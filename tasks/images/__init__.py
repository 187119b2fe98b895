"""Image classification: embedded, published and users' own images."""
