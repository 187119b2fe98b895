"""Naive HyperMLP and HyperGLU, from dense T×T matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad, softplus

from backbones.mixers.base import Context
from backbones.mixers.hyper.hypermlp import HyperMixer
from tests.backbones.naive import naive

EPS = 1e-12  # of the row norm, in the authors' code


def spread(table_HLr: Tensor, first_B: Tensor, tokens: int, mixer: HyperMixer) -> Tensor:
    """`[B, H, T, T, r]`: a table's entry for each pair of query t and key i.

    first_B: the first real position of each row, for tables by position.
    """
    t, i = torch.arange(tokens)[:, None], torch.arange(tokens)[None, :]
    if mixer.config.lag_layout:
        index = (t - i).clamp_min(0) if mixer.config.causal else t - i + mixer.length - 1
        return table_HLr[:, index].expand(len(first_B), *(-1,) * 4)
    return torch.stack([table_HLr[:, (i - int(n)).clamp_min(0).expand(tokens, tokens)] for n in first_B])


def convolve(x_BTD: Tensor, taps_JD: Tensor, causal: bool) -> Tensor:
    J, D = taps_JD.shape
    kernel_JD = taps_JD.flip(0) if causal else torch.cat([taps_JD.flip(0), taps_JD[1:]])
    padded_BDT = pad(x_BTD.transpose(1, 2), (J - 1, 0 if causal else J - 1))
    return conv1d(padded_BDT, kernel_JD.T[:, None], groups=D).transpose(1, 2)


@naive("hypermlp", "hyperglu")
def hyper(mixer: HyperMixer, x_BTD: Tensor, context: Context) -> Tensor:
    c, (B, T, _) = mixer.config, x_BTD.shape
    H, S, r, n_R = c.heads, mixer.sets, mixer.rank, mixer.mixings(c)
    mask_BT = torch.ones(B, T, dtype=torch.bool) if context.mask_BT is None else context.mask_BT
    x_BTD = x_BTD * mask_BT[..., None]
    visible_BTT = mask_BT[:, None, :] & (torch.ones(T, T, dtype=torch.bool).tril() if c.causal else True)
    visible_BHTT = visible_BTT[:, None].to(x_BTD.dtype)
    near_BTD = x_BTD if mixer.taps is None else convolve(x_BTD, mixer.taps, c.causal)

    rows, keys = list(mixer.in_proj.weight.split(mixer.in_splits)), list(mixer.kv_proj.weight.split(mixer.kv_splits))
    gate = [torch.sigmoid(x_BTD @ w.T) if c.gates else torch.ones(()) for w in rows[1:]]
    q = (x_BTD @ rows[0].T * gate[0]).view(B, T, H, S, -1)
    k, v = (near_BTD @ keys[0].T).view(B, T, H, S, -1), (near_BTD @ keys[1].T).view(B, T, H, -1)
    s = (gate[2] if c.gates else torch.ones(B, T, n_R * H * r, dtype=x_BTD.dtype)).view(B, T, n_R, H, r)
    first_B = (~mask_BT).sum(1)

    def mix(j: int, y_BHTT: Tensor, transposed: bool) -> Tensor:
        A, Bt = (spread(t[j], first_B, T, mixer) for t in (mixer.lag_A, mixer.lag_B))
        p = spread(mixer.lag_p[j][..., None], first_B, T, mixer)[..., 0]
        A, Bt = (Bt, A) if transposed else (A, Bt)
        low_BHTr = (y_BHTT[..., None, :] @ A)[..., 0, :] * s[:, :, j].transpose(1, 2)
        return (y_BHTT * (1 + p) + (Bt @ low_BHTr[..., None])[..., 0]) * visible_BHTT

    h = [q[..., j, :].transpose(1, 2) @ k[..., j, :].permute(0, 2, 3, 1) * visible_BHTT for j in range(S)]
    if c.mixing != "R2":
        h = [mix(j, h[j], transposed=False) for j in range(S)]
    active = h[0].relu() / (h[0].square().sum(-1, keepdim=True) + EPS).sqrt()
    if S == 2:
        active = softplus(h[1]) * active
    if c.mixing != "R1":
        active = mix(n_R - 1, active, transposed=True)
    o_BTD = torch.einsum("bhti,bihw->bthw", active, v).flatten(2) * gate[1]
    return o_BTD @ mixer.out_proj.weight.T
