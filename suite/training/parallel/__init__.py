"""Several processes that train one model together: ranks, with DDP or FSDP2."""
