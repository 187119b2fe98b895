"""Steps of decoding in the log domain for `decoding.cpp`: arguments as in `kernels.linear.exact` and
`kernels.selective.exact`. Nothing is differentiated here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cpu.call import call, takes

State = dict[str, Tensor]
Stepped = tuple[Tensor, Tensor | None, State]


def _watched(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def linear_step(
    state: State, log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None
) -> Stepped | None:
    """One token of linear attention.

    Args:
        state: `n_BHk`, `m_BHkd` and, with u, `f_BHkd`.
        log_q: `[B, H, 1, k]`.
        log_k: `[B, H, 1, k]`.
        log_decay: `[B, H, 1, 1]`, `[B, H, 1, k]` or None.
        v: `[B, H, 1, d]`.
        u: `[B, H, 1, d]` or None.

    Returns:
        As `exact_chunk`; None where the compiled library does not take the call.
    """
    names = ["n_BHk", "m_BHkd", *([] if u is None else ["f_BHkd"])]
    before = [state[name] for name in names]
    given = [log_q, log_k, v, *([] if log_decay is None else [log_decay]), *([] if u is None else [u]), *before]
    decays = "" if log_decay is None else " BH11" if log_decay.shape[-1] == 1 else " BH1k"
    shapes = f"BH1k BH1k BH1d{decays}{'' if u is None else ' BH1d'} BHk BHkd{'' if u is None else ' BHkd'}"
    if _watched(*given) or not takes(shapes, *given):
        return None
    B, H, _, k = log_q.shape
    d, decay_width = v.shape[-1], 0 if log_decay is None else log_decay.shape[-1]
    held = [x if x is None else x.contiguous() for x in (log_q, log_k, log_decay, v, u, *before)]
    after = {name: torch.empty(x.shape, dtype=x.dtype) for name, x in zip(names, before, strict=True)}
    mu, log_mean = v.new_empty(v.shape), None if u is None else v.new_empty(v.shape)
    pad: list[Tensor | None] = [None] * (3 - len(before))
    call("linear_step", [*held, *pad, mu, log_mean, *after.values(), *pad], [B * H, k, d, decay_width], B * H * k * d)
    return mu, log_mean, after


def selective_step(
    state: State,
    log_delta: Tensor,
    a_NE: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    log_skip_E: Tensor,
    v_BE: Tensor,
    u_BE: Tensor | None,
) -> Stepped | None:
    """One token of the selective scan.

    Args:
        state: `n_BNE`, `m_BNE` and, with u, `f_BNE`.
        log_delta: `[B, E]`.
        a_NE: `[N, E]`.
        log_b: `[B, N]`.
        log_c: `[B, N]`.
        log_skip_E: `[E]`.
        v_BE: `[B, E]`.
        u_BE: `[B, E]` or None.

    Returns:
        As `exact_step`; None where the compiled library does not take the call.
    """
    names = ["n_BNE", "m_BNE", *([] if u_BE is None else ["f_BNE"])]
    before = [state[name] for name in names]
    inputs = [log_delta, a_NE, log_b, log_c, log_skip_E, v_BE]
    given = [*inputs, *([] if u_BE is None else [u_BE]), *before]
    optional = ("", "") if u_BE is None else (" BE", " BNE")
    if _watched(*given) or not takes(f"BE NE BN BN E BE{optional[0]} BNE BNE{optional[1]}", *given):
        return None
    B, N, E = state["n_BNE"].shape
    held = [x if x is None else x.contiguous() for x in (*inputs, u_BE, *before)]
    after = {name: torch.empty(x.shape, dtype=x.dtype) for name, x in zip(names, before, strict=True)}
    mu, log_mean = v_BE.new_empty(v_BE.shape), None if u_BE is None else v_BE.new_empty(v_BE.shape)
    pad: list[Tensor | None] = [None] * (3 - len(before))
    call("selective_step", [*held, *pad, mu, log_mean, *after.values(), *pad], [B, N, E], B * N * E)
    return mu, log_mean, after
