"""Other projects' implementations of our computations, as far as they are installed: PyTorch's compiler and
FlexAttention always, mambapy and flash-linear-attention as extras (`pip install mambapy flash-linear-attention`). Each
takes our tensors and returns our result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

Function = Callable[..., Tensor | tuple[Tensor, ...]]


def compiled(function: Function) -> Function:
    """torch.compile of a naive reference implementation, for one shape. The first call compiles, which takes seconds to
    a minute.
    """
    result: Function = torch.compile(function, dynamic=False)
    return result


def flex_attention(q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor) -> Tensor:
    """PyTorch's FlexAttention with a causal score modification."""
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as flex

    T = q_BTHk.shape[1]
    mask = create_block_mask(lambda b, h, t, i: t >= i, None, None, T, T, device="cpu")
    q, k, v = (x.transpose(1, 2) for x in (q_BTHk, k_BTHk, v_BTHw))
    out: Tensor = torch.compile(flex, dynamic=False)(q, k, v, block_mask=mask)
    return out.transpose(1, 2)


def linear_sums() -> Mapping[str, Function]:
    """(q, k, v) → sums without decay."""
    if not find_spec("fla"):
        return {}
    naive = import_module("fla.ops.linear_attn.naive").naive_chunk_linear_attn
    return {"fla's naive chunks": lambda q, k, v: naive(q, k, v, scale=1.0, normalize=False)}


def scalar_decay_sums() -> Mapping[str, Function]:
    """(q, k, v, log-decay `[B, T, H]`) → decayed sums."""
    if not find_spec("fla"):
        return {}
    naive = import_module("fla.ops.simple_gla.naive").naive_chunk_simple_gla
    return {"fla's naive chunks": lambda q, k, v, g: _first(naive(q, k, v, g, scale=1.0))}


def selective_scans() -> Mapping[str, Function]:
    """(Δ `[B, T, E]`, a `[N, E]`, b, c `[B, T, N]`, v `[B, T, E]`) → `[B, T, E]`."""
    if not find_spec("mambapy"):
        return {}
    pscan = import_module("mambapy.pscan").pscan

    def read(delta_BTE: Tensor, a_NE: Tensor, b_BTN: Tensor, c_BTN: Tensor, v_BTE: Tensor) -> Tensor:
        decay_BTEN = torch.exp(delta_BTE[..., None] * a_NE.T)
        states_BTEN = pscan(decay_BTEN, delta_BTE[..., None] * b_BTN[:, :, None] * v_BTE[..., None])
        out: Tensor = (states_BTEN @ c_BTN[..., None])[..., 0]
        return out

    return {"mambapy's parallel scan": read}


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]
