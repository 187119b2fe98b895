"""bf16 autocast on CPUs: which implementation runs, and those with products in bf16."""
