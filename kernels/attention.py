"""Softmax attention read: `out_t = Σ_i softmax_i(scale·q_t·k_i) v_i` over the visible i.

Contract: q `[B, S, H, k]`, k `[B, T, H, k]`, v `[B, T, H, w]`, one floating dtype; out `[B, S, H, w]`. Causal needs S =
T. `mask_BT` is True at keys that count. Rows that see no such key (padding itself) are finite and mean nothing.

On a CPU the compiled form does it (`kernels.cpu.attention`), elsewhere PyTorch's SDPA. SDPA's CPU kernel is a flash
pass only when values are as wide as queries, so the narrower side is padded with zeros for it (the scale stays). A mask
costs one more channel, a bias of −10⁹ on the scores of padded keys, never a T×T operand.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from kernels.cpu.attention import Attention
from kernels.cpu.call import multiplies

MASK_BIAS = -1e9  # exp(MASK_BIAS − anything real) is exactly 0, and the sum with a score stays finite


def softmax_read(
    q_BSHk: Tensor,
    k_BTHk: Tensor,
    v_BTHw: Tensor,
    causal: bool,
    mask_BT: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """`[B, S, H, w]`; scale 1/√k unless given."""
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
    """Whether the compiled form reads these; under autocast SDPA chooses the precision."""
    return not torch.is_autocast_enabled("cpu") and multiplies("BSHk BTHk BTHw", q_BSHk, k_BTHk, v_BTHw)


def mask_scores(q_BSHk: Tensor, k_BTHk: Tensor, mask_BT: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q and k, one channel wider, so that `scale·q·k` gains MASK_BIAS at keys where the mask is False."""
    bias_BT = torch.where(mask_BT, 0.0, MASK_BIAS / scale).to(k_BTHk.dtype)
    bias_BTH1 = bias_BT[:, :, None, None].expand(*k_BTHk.shape[:3], 1)
    return pad(q_BSHk, (0, 1), value=1.0), torch.cat((k_BTHk, bias_BTH1), dim=-1)


def equal_widths(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pads queries and keys, or values, with zero channels up to one width."""
    extra = v.shape[-1] - q.shape[-1]
    if extra > 0:
        return pad(q, (0, extra)), pad(k, (0, extra)), v
    return q, k, pad(v, (0, -extra)) if extra < 0 else v
