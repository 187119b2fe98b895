"""Language modelling: embedded, published and users' own text."""
