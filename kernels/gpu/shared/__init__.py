"""What the Triton kernels share: tiles, functions of one number, launches."""
