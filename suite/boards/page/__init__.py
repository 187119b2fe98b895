"""The published boards: HTML pages without external requests, and tables."""
