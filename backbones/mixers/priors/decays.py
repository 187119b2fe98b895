"""The fixed decays of retention (arXiv 2307.08621), `a = 1 − 2^{−5−h}`, computed once per number of heads."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_POWER = 5
_tables: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}


def fixed_log_decays(heads: int, ahead: int, like: Tensor) -> Tensor:
    """log a of every head: h counts from 0 over the first `ahead` heads, and again over the others.

    Args:
        heads: number of heads H.
        ahead: heads that read from the start.
        like: a tensor of the dtype and device of the result.

    Returns:
        `[H]`, ≤ 0.
    """
    if torch.compiler.is_compiling():  # a traced graph must not contain a cached tensor
        return _table(heads, ahead, like)
    key = (heads, ahead, like.device, like.dtype)
    found = _tables.get(key)
    if found is None:
        found = _table(heads, ahead, like)
        if type(found) is Tensor:  # never a fake or traced one
            _tables[key] = found
    return found


@torch.inference_mode(False)  # the table is shared: a later training step may save it for backward
@torch.no_grad()
def _table(heads: int, ahead: int, like: Tensor) -> Tensor:
    h = torch.arange(heads, device=like.device, dtype=torch.float64)
    h = torch.where(h < ahead, h, h - ahead)
    return torch.log1p(-(2.0 ** (-FIRST_POWER - h))).to(like.dtype)
