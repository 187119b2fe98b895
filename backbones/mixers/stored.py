"""The numbers that a module keeps: what a budget of parameters has to count."""

from __future__ import annotations

from torch import nn


def stored_numbers(module: nn.Module) -> dict[str, int]:
    """Everything that a checkpoint of the module holds: trainable and frozen parameters, and persistent buffers.

    A number that is not trained helps an output as much as one that is, so a table in a buffer is a parameter for the
    budget. Buffers that are not persistent are left out: the contract's check `state-dict` finds those that are not
    computed from the config alone.

    Args:
        module: any module; a parameter that is shared counts once.

    Returns:
        The number of entries of each tensor, by name.
    """
    saved = module.state_dict(keep_vars=True)
    buffers = {name: b for name, b in module.named_buffers() if name in saved}
    return {name: tensor.numel() for name, tensor in {**dict(module.named_parameters()), **buffers}.items()}
