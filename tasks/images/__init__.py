"""Image classification on embedded, published and users' own images."""
