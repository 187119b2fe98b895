"""The published boards: one HTML page without external requests, and tables."""
