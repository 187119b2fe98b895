"""The small kernels of which the gated delta rule is made: within a chunk, and backward."""
