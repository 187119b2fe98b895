"""Everything that needs a GPU: `make test-gpu`. See docs/gpu.md."""
