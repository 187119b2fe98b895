"""The compiled steps of decoding, written with PyTorch's operations, which a library that was just built is compared
with. Arguments as in `kernels.decoding`; states are returned, not written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import elu, layer_norm, logsigmoid, normalize, rms_norm, silu, softplus

from kernels.channelwise import channelwise_step
from kernels.cpu.call import pytorch_only
from kernels.decoding.channels import AXES, Selection
from kernels.decoding.layer import Decays, Gates, State, to_logarithms
from kernels.decoding.memory import Around, memory_step
from kernels.decoding.rwkv import Parameters, Projections
from kernels.gates import rms
from kernels.linear.exact import exact_step
from kernels.selective.exact import exact_step as selective_step
from kernels.taylor import features, ratio, with_ones


def _turned(x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
    if turn is None:
        return x
    (a, b), (cosine, sine) = x.unflatten(-1, (-1, 2)).unbind(-1), turn
    return torch.stack((a * cosine - b * sine, a * sine + b * cosine), dim=-1).flatten(-2)


def _finished(o: Tensor, around: Around) -> Tensor:
    if around.normaliser:
        o = o[..., :-1] / o[..., -1:].abs().clamp(min=1.0)
    width = (o.shape[-1],)
    if around.norm:
        o = layer_norm(o, width, eps=around.eps) if around.norm == "layer" else rms_norm(o, width, eps=around.eps)
    if around.gain is not None:
        o = o * (around.gain if around.gain.numel() == width[0] else around.gain.view(o.shape[1:]))
    if around.gate_BE is not None:
        logits = around.gate_BE.reshape(o.shape)
        o = o * (silu(logits) if around.gated == "silu" else logits.sigmoid())
    return o


def memory(
    memory_BHkw: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    around: Around = Around(),
) -> tuple[Tensor, Tensor]:
    """`memory_step` with what is done around it.

    Returns:
        The finished o `[B, H, w]`, and S after the token.
    """
    if around.unit:
        q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + around.unit) for x in (q, k))
    q, k = (_turned(x, around.turn) for x in (q * around.scale, k))
    v = torch.cat((v, torch.ones_like(v[..., :1])), dim=-1) if around.normaliser else v
    with pytorch_only():
        o, after = memory_step(memory_BHkw, q, k, v, log_decay, beta)
        return _finished(o, around), after


def layer(state: State, z_BC: Tensor, decays: Decays | None, gates: Gates | None) -> tuple[Tensor, State]:
    """`layer_step`, by the step in the log domain.

    Returns:
        `[B, E]`, and the state after the token, with f.
    """
    state = dict(state)
    to_logarithms(state)
    _, H, k, d = state["m_BHkd"].shape
    if gates is not None and gates.s_BR is not None and gates.p_RC is not None:
        z_BC = z_BC * (1 + gates.s_BR @ gates.p_RC)
    widths = [H * k, H * k, H * d, *([] if gates is None else [H * d, H * d])]
    q, key, v, *logits = (z.unflatten(-1, (H, -1))[:, :, None] for z in z_BC.split(widths, dim=-1))
    log_decay = None
    if decays is not None:
        raw = decays.given.expand(len(z_BC), -1)
        raw = raw if decays.bias is None else logsigmoid(raw + decays.bias) / decays.slowness
        log_decay = raw.unflatten(-1, (H, -1))[:, :, None]
    u = None if gates is None else v * gates.beta_Hd[:, None]
    with pytorch_only():
        mu, log_mean, after = exact_step(state, (elu(q) + 1).log(), (elu(key) + 1).log(), log_decay, v, u)
    if gates is None or log_mean is None:
        return mu.flatten(1), after
    return _gated(mu, log_mean, logits, gates.beta_Hd[:, None]), after


def _gated(mu: Tensor, log_mean: Tensor, logits: Sequence[Tensor], beta: Tensor) -> Tensor:
    mixed = torch.lerp(mu, log_mean / beta, logits[0].sigmoid())
    return (mixed * rms(softplus(logits[1]))).flatten(1)


def selective_layer(
    state: State, x_BD: Tensor, z_BC: Tensor, heads: int, selection: Selection, gates: Gates | None
) -> tuple[Tensor, State]:
    """`selective_layer_step`, by the step in the log domain.

    Returns:
        `[B, E]`, and the state after the token, with f.
    """
    state = dict(state)
    to_logarithms(state, AXES)
    (v, *logits), beta_E = _modulated(z_BC, 1, gates)
    delta = softplus(x_BD @ selection.w_down.T @ selection.w_up.T + selection.bias)
    log_b, log_c = softplus(x_BD @ selection.w_states.T).log().chunk(2, dim=-1)
    dynamics = delta.log(), -selection.a_log.exp(), log_b, log_c, softplus(selection.w_skip).log()
    with pytorch_only():
        mu, log_mean, after = selective_step(state, *dynamics, v, None if beta_E is None else v * beta_E)
    if gates is None or log_mean is None:
        return mu, after
    by_head = [x.unflatten(-1, (heads, -1)) for x in (mu, log_mean, *logits)]
    return _gated(by_head[0], by_head[1], by_head[2:], gates.beta_Hd), after


def channel_layer(state: State, z_BC: Tensor, heads: int, gates: Gates | None) -> tuple[Tensor, State]:
    """`channel_layer_step`.

    Returns:
        `[B, E]`, and the state after the token.
    """
    state = dict(state)
    (q, k, v, *logits), beta_E = _modulated(z_BC, 3, gates)
    channelwise_step(state, k, v, None if beta_E is None else v * beta_E)
    y, gate = state["m_BE"], rms(softplus(q.unflatten(-1, (heads, -1)))).flatten(1)
    if gates is None:
        return y * gate, state
    by_head = [x.unflatten(-1, (heads, -1)) for x in (y, state["f_BE"], *logits)]
    return _gated(by_head[0], by_head[1], by_head[2:], gates.beta_Hd) * gate, state


def _modulated(z_BC: Tensor, projections: int, gates: Gates | None) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The projections, and β of all channels."""
    if gates is not None and gates.s_BR is not None and gates.p_RC is not None:
        z_BC = z_BC * (1 + gates.s_BR @ gates.p_RC)
    parts = z_BC.chunk(projections if gates is None else projections + 2, dim=-1)
    return parts, None if gates is None else gates.beta_Hd.flatten()


def rwkv(memory_BHkw: Tensor, given: Projections, layer: Parameters) -> tuple[Tensor, Tensor]:
    """`compiled_rwkv_step`.

    Returns:
        `[B, H·w]`, and S after the token.
    """

    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(-1, (memory_BHkw.shape[1], -1))

    r, k, v, w, a, g = map(by_head, given.tensors())
    w_start, a_start, k_k, k_a, r_k, gain, bias = map(by_head, layer.tensors())
    keep, a = torch.exp(-layer.largest_decay * (w_start + w).sigmoid()), (a_start + a).sigmoid()
    removed = normalize(k * k_k, dim=-1, eps=layer.unit_eps)
    k = k * (1 + (a - 1) * k_a)
    found = removed[..., None, :] @ memory_BHkw
    after = keep[..., None] * memory_BHkw - (removed * a)[..., None] * found + k[..., None] * v[..., None, :]
    o = layer_norm((r[..., None, :] @ after)[..., 0, :], v.shape[-1:], eps=layer.norm_eps) * gain + bias
    return ((o + (r * k * r_k).sum(-1, keepdim=True) * v) * g).flatten(1), after


def taylor(sums_BHFw: Tensor, z_BC: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`taylor_step`.

    Returns:
        `[B, H·d]`, and the sums after the token.
    """
    q, k, v = z_BC.unflatten(-1, (3, sums_BHFw.shape[1], -1)).unbind(1)
    after = sums_BHFw + features(_turned(k, turn))[..., None] * with_ones(v)[..., None, :]
    return ratio((features(_turned(q, turn))[..., None, :] @ after)[..., 0, :]).flatten(1), after


def silu_convolution(past: Tensor, x: Tensor, taps: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """`silu_convolution_step`.

    Returns:
        `[B, c]`, and the last inputs after the token.
    """
    seen = torch.cat((x[:, None], past), dim=1)
    y = (seen * taps).sum(1)
    return silu(y if bias is None else y + bias), seen[:, :-1]


def convolution(h: Tensor, x: Tensor, weight: Tensor, eps: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """`convolution_step`.

    Returns:
        The factors `[B, R]` and h after the token, in fp64.
    """
    z = layer_norm(x.double(), x.shape[-1:], eps=eps[0])
    a, u, s = (z @ weight.double().T).chunk(3, dim=-1)
    h = torch.exp(-softplus(a)) * h.double() + u
    s = softplus(s)
    return s * torch.rsqrt(s.square().mean(-1, keepdim=True) + eps[2]) * layer_norm(h, h.shape[-1:], eps=eps[1]), h
