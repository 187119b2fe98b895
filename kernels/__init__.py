"""Pure functions on tensors, each exact for every finite input. `kernels.registry` lists them."""
