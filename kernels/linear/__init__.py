"""Linear attention with and without decay: sums, exact log-domain reads, free energies."""
