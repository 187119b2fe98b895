"""Softmax attention (arXiv 1706.03762): `out_t = Σ_i softmax_i(scale·q_t·k_i) v_i` over the visible keys i.

On a CPU a compiled implementation runs (`kernels.cpu.attention`), elsewhere PyTorch's SDPA. On a CPU SDPA runs a flash
pass only if values are as wide as queries, so the narrower side is padded with zeros (the scale is unchanged). A mask
costs one more channel, a bias of −10⁹ on the scores of padded keys, never a T×T operand.

Under bf16 autocast on a CPU, the compiled implementation computes in fp32 and its result is rounded: SDPA takes several
times as long there, and of products as narrow as a head, those in bf16 are hardly faster.

Options of the same read: gates (arXiv 2503.02130), which decay the scores between two tokens, and a window. The
compiled implementation has them; SDPA gets them as a bias `[T, T]`.

Shape letters: B sequences, S queries, T keys, H heads, k and w channels per head of keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from kernels.cpu.attention import Attention, Options
from kernels.cpu.bf16.choice import takes_half, widened
from kernels.cpu.call import multiplies, takes
from kernels.numerics.nothing import nothing
from kernels.rows import require_tables, rotate_pairs

_SHAPES = "BSHk BTHk BTHw"
MASK_BIAS = -1e9  # exp(MASK_BIAS − any ordinary score) is exactly 0, and its sum with a score is finite


def softmax_read(
    q_BSHk: Tensor,
    k_BTHk: Tensor,
    v_BTHw: Tensor,
    causal: bool,
    mask_BT: Tensor | None = None,
    scale: float | None = None,
    log_f_BTH: Tensor | None = None,
    window: int = 0,
    turn: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean of the visible values under the softmax of the scores.

    Args:
        q_BSHk: queries `[B, S, H, k]`.
        k_BTHk: keys `[B, T, H, k]`, of the queries' floating dtype.
        v_BTHw: values `[B, T, H, w]`, of the same dtype.
        causal: whether row t sees keys i ≤ t only; needs S = T.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.
        scale: factor of the scores; 1/√k if None.
        log_f_BTH: logarithms ≤ 0 of gates `[B, T, H]`, 0 at padding: the score of row t and key i loses |Σ log f| over
            the later of the two and what lies between; needs S = T. None for no gates.
        window: a row sees keys less than so many tokens away; needs S = T. 0 for all.
        turn: cosines and sines `[T, 1, k/2]` of the angles by which queries and keys are rotated first, as in
            `kernels.rows.rotate_pairs`; needs S = T. None for no rotation. The compiled implementation rotates what is
            in the cache. No gradient goes to the tables.

    Returns:
        `[B, S, H, w]`, in the dtype of the inputs, or that of autocast. Rows that see no key (padding) are finite and
        have no meaning.

    Raises:
        ValueError: the turn is that of another number of tokens or channels.
    """
    scale, width = scale or q_BSHk.shape[-1] ** -0.5, v_BTHw.shape[-1]
    if turn is not None:
        require_tables((q_BSHk, k_BTHk), *turn)
        inside = compiled(q_BSHk, k_BTHk, v_BTHw, log_f_BTH) and takes("BTHk T1c T1c", q_BSHk, *turn)
        if mask_BT is not None or not inside:
            (q_BSHk, k_BTHk), turn = rotate_pairs((q_BSHk, k_BTHk), *turn), None
    if log_f_BTH is not None and log_f_BTH.numel() == 0:
        return nothing((*q_BSHk.shape[:3], width), v_BTHw, q_BSHk, k_BTHk, log_f_BTH)
    if mask_BT is not None:
        q_BSHk, k_BTHk = mask_scores(q_BSHk, k_BTHk, mask_BT, scale)
        v_BTHw = v_BTHw.masked_fill(~mask_BT[:, :, None, None], 0.0)
    if compiled(q_BSHk, k_BTHk, v_BTHw, log_f_BTH):
        tables = turn and (turn[0][:, 0], turn[1][:, 0])
        read: Tensor = Attention.apply(q_BSHk, k_BTHk, v_BTHw, log_f_BTH, Options(causal, scale, window), tables)
        return read
    gates = [] if log_f_BTH is None else [log_f_BTH]
    if takes_half("attention", "c++ in fp32", _SHAPES + " BTH" * len(gates), q_BSHk, k_BTHk, v_BTHw, *gates):
        q, k, v, *gates = widened((q_BSHk, k_BTHk, v_BTHw, *gates))
        wide: Tensor = Attention.apply(q, k, v, gates[0] if gates else None, Options(causal, scale, window))
        return wide.to(torch.bfloat16)
    q_BSHk, k_BTHk, v_BTHw = equal_widths(q_BSHk, k_BTHk, v_BTHw)
    q, k, v = (x.transpose(1, 2) for x in (q_BSHk, k_BTHk, v_BTHw))
    bias = score_bias(q, log_f_BTH, causal, window) if log_f_BTH is not None or window else None
    out: Tensor = scaled_dot_product_attention(q, k, v, bias, is_causal=causal and bias is None, scale=scale)
    return out.transpose(1, 2)[..., :width]


def score_bias(q_BHTk: Tensor, log_f_BTH: Tensor | None, causal: bool, window: int) -> Tensor:
    """What gates and a window add to the scores.

    Args:
        q_BHTk: queries; their shape, dtype and device matter.
        log_f_BTH: as in `softmax_read`.
        causal: whether row t sees keys i ≤ t only.
        window: as in `softmax_read`.

    Returns:
        `[B or 1, H or 1, T, T]`: minus the decay between two tokens, −∞ where a row does not see a key.
    """
    T = q_BHTk.shape[2]
    t = torch.arange(T, device=q_BHTk.device)
    gap_TT = t[:, None] - t
    hidden_TT = (gap_TT < 0) if causal else torch.zeros_like(gap_TT, dtype=torch.bool)
    if window:
        hidden_TT = hidden_TT | (gap_TT.abs() >= window)
    if log_f_BTH is None:
        return q_BHTk.new_zeros(1, 1, T, T).masked_fill(hidden_TT, float("-inf"))
    sums_BHT = log_f_BTH.double().cumsum(1).transpose(1, 2)
    decays_BHTT = (sums_BHT[..., :, None] - sums_BHT[..., None, :]).abs()
    return (-decays_BHTT).to(q_BHTk.dtype).masked_fill(hidden_TT, float("-inf"))


def compiled(q_BSHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_f_BTH: Tensor | None = None) -> bool:
    """Whether the C++ implementation takes this call as it is; under autocast none.

    Args:
        q_BSHk: queries `[B, S, H, k]`.
        k_BTHk: keys `[B, T, H, k]`.
        v_BTHw: values `[B, T, H, w]`.
        log_f_BTH: gates `[B, T, H]`; None for none.

    Returns:
        True for ordinary CPU tensors of one dtype, fp32 or fp64, where the library was built.
    """
    tensors, gates = ([], "") if log_f_BTH is None else ([log_f_BTH], " BTH")
    if torch.is_autocast_enabled("cpu"):
        return False
    return multiplies(_SHAPES + gates, q_BSHk, k_BTHk, v_BTHw, *tensors)


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
