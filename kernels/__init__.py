"""Pure functions on tensors, each exact for every finite input. Plain PyTorch."""
