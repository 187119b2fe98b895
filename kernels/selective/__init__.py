"""Selective state-space scans: sums, exact log-domain reads, free energies."""
