"""Naive attention with other queries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from backbones.mixers.base import Context
from tests.backbones.naive import naive
from tests.backbones.naive.attention import heads, merged, softmax_weights, visible


def attend(mixer: Any, x_BTD: Tensor, context: Context, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    H = mixer.config.heads
    p = softmax_weights(q, k, H, visible(x_BTD, mixer.config.causal, context))
    return linear(merged(p @ heads(v, H)), mixer.out_proj.weight)


def gelu(z: Tensor) -> Tensor:
    return 0.5 * z * (1 + torch.erf(z / 2**0.5))


def root_mean_square(z: Tensor) -> Tensor:
    return z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@naive("identity-query")
def identity(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    k, v = linear(x_BTD, mixer.kv_proj.weight).chunk(2, dim=-1)
    return attend(mixer, x_BTD, context, x_BTD / 2, k, v)


@naive("nonlinear-query", "linear-residual-query")
def residual(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    k, v = linear(x_BTD, mixer.kv_proj.weight).chunk(2, dim=-1)
    inner = linear(root_mean_square(x_BTD) * mixer.gain_in, mixer.query_in)
    inner = gelu(inner) if type(mixer).__name__ == "NonlinearQuery" else inner
    z = linear(inner, mixer.query_out)
    z = z - z.mean(-1, keepdim=True)
    return attend(mixer, x_BTD, context, (x_BTD + root_mean_square(z) * mixer.gain_out) / 2, k, v)


@naive("qk-norm")
def qk_norm(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    q, k, v = linear(x_BTD, mixer.in_proj.weight).chunk(3, dim=-1)
    H = mixer.config.heads
    q, k = (merged(root_mean_square(heads(z, H)) * gain) for z, gain in ((q, mixer.gain_q), (k, mixer.gain_k)))
    return attend(mixer, x_BTD, context, q, k, v)
