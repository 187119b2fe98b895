"""Developer tools: the ahead-of-time compiler and the roofline estimate of the Triton kernels."""
