"""Which implementations of the kernels models run on: for records, and for running them without the compiled ones."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from kernels.cpu.bf16 import choice
from kernels.cpu.call import pytorch_only
from kernels.cpu.library import products
from kernels.cpu.products.blas import TITLES
from kernels.implementations import ran


def without_compiled_kernels() -> AbstractContextManager[None]:
    """Within the block, models on a CPU run PyTorch's own operations: another rounding of the same computation.

    Returns:
        The context.
    """
    return pytorch_only()


def implementations(device: torch.device, precision: str = "fp32") -> dict[str, str]:
    """Which implementations of the kernels run on a device, for records.

    Args:
        device: where the model runs.
        precision: "fp32", or "bf16" for autocast.

    Returns:
        On a GPU, an implementation per kernel that has run so far; on a CPU, whether the compiled ones are available
        and whose matrix products they call, and in bf16 what has computed the kernels that run otherwise under autocast
        (`kernels.cpu.bf16.choice`).
    """
    if device.type == "cuda":
        return ran()
    multiplied = products()
    compiled = f"c++, products by {TITLES[multiplied.name]}" if multiplied else "pytorch"
    return {"cpu": compiled, **(choice.ran() if precision == "bf16" else {})}


def forget_implementations() -> None:
    """Clears the record of what has computed kernels in bf16 on a CPU: `implementations` reports one run."""
    choice.forget()
