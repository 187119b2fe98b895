"""Softmax attention (arXiv 1706.03762): `out_t = Σ_i softmax_i(scale·q_t·k_i) v_i` over the visible keys i.

On a CPU a compiled implementation runs (`kernels.cpu.attention`), elsewhere PyTorch's SDPA. On a CPU SDPA runs a flash
pass only if values are as wide as queries, so the narrower side is padded with zeros (the scale is unchanged). A mask
costs one more channel, a bias of −10⁹ on the scores of padded keys, never a T×T operand.

Shape letters: B sequences, S queries, T keys, H heads, k and w channels per head of keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from kernels.cpu.attention import Attention
from kernels.cpu.call import multiplies

MASK_BIAS = -1e9  # exp(MASK_BIAS − any ordinary score) is exactly 0, and its sum with a score is finite


def softmax_read(
    q_BSHk: Tensor,
    k_BTHk: Tensor,
    v_BTHw: Tensor,
    causal: bool,
    mask_BT: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Mean of the visible values under the softmax of the scores.

    Args:
        q_BSHk: queries `[B, S, H, k]`.
        k_BTHk: keys `[B, T, H, k]`, of the queries' floating dtype.
        v_BTHw: values `[B, T, H, w]`, of the same dtype.
        causal: whether row t sees keys i ≤ t only; needs S = T.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.
        scale: factor of the scores; 1/√k if None.

    Returns:
        `[B, S, H, w]`, in the dtype of the inputs. Rows that see no key (padding) are finite and have no meaning.
    """
    scale, width = scale or q_BSHk.shape[-1] ** -0.5, v_BTHw.shape[-1]
    if mask_BT is not None:
        q_BSHk, k_BTHk = mask_scores(q_BSHk, k_BTHk, mask_BT, scale)
        v_BTHw = v_BTHw.masked_fill(~mask_BT[:, :, None, None], 0.0)
    if compiled(q_BSHk, k_BTHk, v_BTHw):
        read: Tensor = Attention.apply(q_BSHk, k_BTHk, v_BTHw, causal, scale)
        return read
    q_BSHk, k_BTHk, v_BTHw = equal_widths(q_BSHk, k_BTHk, v_BTHw)
    q, k, v = (x.transpose(1, 2) for x in (q_BSHk, k_BTHk, v_BTHw))
    out: Tensor = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    return out.transpose(1, 2)[..., :width]


def compiled(q_BSHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor) -> bool:
    """Whether the C++ implementation takes this call; under autocast SDPA chooses the precision.

    Args:
        q_BSHk: queries `[B, S, H, k]`.
        k_BTHk: keys `[B, T, H, k]`.
        v_BTHw: values `[B, T, H, w]`.

    Returns:
        True for ordinary CPU tensors of one dtype, fp32 or fp64, where the library was built.
    """
    return not torch.is_autocast_enabled("cpu") and multiplies("BSHk BTHk BTHw", q_BSHk, k_BTHk, v_BTHw)


def mask_scores(q_BSHk: Tensor, k_BTHk: Tensor, mask_BT: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Adds a channel to q and k, so that `scale·q·k` gains MASK_BIAS at keys where the mask is False.

    Args:
        q_BSHk: queries `[B, S, H, k]`.
        k_BTHk: keys `[B, T, H, k]`.
        mask_BT: bool `[B, T]`, True at keys that count.
        scale: factor of the scores.

    Returns:
        Queries `[B, S, H, k + 1]` and keys `[B, T, H, k + 1]`.
    """
    bias_BT = torch.where(mask_BT, 0.0, MASK_BIAS / scale).to(k_BTHk.dtype)
    bias_BTH1 = bias_BT[:, :, None, None].expand(*k_BTHk.shape[:3], 1)
    return pad(q_BSHk, (0, 1), value=1.0), torch.cat((k_BTHk, bias_BTH1), dim=-1)


def equal_widths(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pads queries and keys, or values, with zero channels up to one width.

    Args:
        q: queries `[B, S, H, k]`.
        k: keys `[B, T, H, k]`.
        v: values `[B, T, H, w]`.

    Returns:
        q, k and v, each max(k, w) channels wide.
    """
    extra = v.shape[-1] - q.shape[-1]
    if extra > 0:
        return pad(q, (0, extra)), pad(k, (0, extra)), v
    return q, k, pad(v, (0, -extra)) if extra < 0 else v
