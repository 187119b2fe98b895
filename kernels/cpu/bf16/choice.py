"""bf16 autocast on CPUs: which calls the compiled library takes, and a record of what ran.

Autocast rounds the inputs and the results of matrix products to bf16. Three kinds of implementation keep to that
contract, each named in the record of a run:

    c++ in bf16   products of factors in bf16 with sums in fp32; everything between the products is in fp32
    c++ in fp32   the fp32 implementation; inputs that are in bf16 are widened, and the result is rounded
    pytorch       PyTorch's own operations under autocast
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kernels.cpu.call import available, ordinary, watched_or_refused
from kernels.cpu.library import bf16_product, products

Form = Literal["c++ in bf16", "c++ in fp32"]
DTYPES = (torch.bfloat16, torch.float32)
_ran: dict[str, set[str]] = {}


def ran() -> dict[str, str]:
    """`{kernel: implementation}` of the calls under bf16 autocast on a CPU since `forget`; several are joined."""
    return {name: ", ".join(sorted(_ran[name])) for name in sorted(_ran)}


def forget() -> None:
    """Clears the record of what ran."""
    _ran.clear()


def autocast_in_bf16() -> bool:
    """Whether operations on CPU tensors run under bf16 autocast."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def takes_half(kernel: str, form: Form, shapes: str, *tensors: Tensor, multiplies: bool = True) -> bool:
    """Whether a compiled implementation computes a call under bf16 autocast; notes what does.

    Args:
        kernel: its name in the registry.
        form: what the compiled implementation is.
        shapes: of the tensors, as in `kernels.cpu.call.takes`.
        tensors: on a CPU, each in bf16 or fp32.
        multiplies: whether it calls matrix products.

    Returns:
        True where it does; False outside of bf16 autocast, while operations are traced or counted, and where PyTorch
        has to compute the call.
    """
    if not (autocast_in_bf16() and not watched_or_refused() and tensors[0].device.type == "cpu"):
        return False
    fits = all(x.dtype in DTYPES for x in tensors) and ordinary(shapes, *tensors)
    product = bf16_product() if form == "c++ in bf16" else products()
    compiled = fits and available() and (product is not None or not multiplies)
    _ran.setdefault(kernel, set()).add(form if compiled else "pytorch")
    return compiled


def in_bf16(x: Tensor) -> Tensor:
    """The values rounded to bf16, contiguous."""
    return x.to(torch.bfloat16).contiguous()


def widened(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in fp32."""
    return [x.float() for x in tensors]
