"""mLSTM, Mamba-2, Kimi delta attention and RWKV-7: published forms, strong decays, and what an empty start leaves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.mixers import build
from backbones.mixers.base import Context
from backbones.mixers.errors import MixerError
from backbones.mixers.recurrent.rwkv7 import Projected, memory_read
from tests.tolerances import FP64

D, T = 32, 30
names = pytest.mark.parametrize("name", ["mlstm", "mamba2", "kda", "rwkv7"])


def made(name: str, causal: bool = True, **options: Any) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    mixer: Any = build(name, D, T, causal=causal, heads=2, **options).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer, torch.randn(2, T, D, dtype=torch.float64)


def close(got: Tensor, wanted: Tensor) -> bool:
    return float((got - wanted).detach().abs().max()) <= FP64 * float(wanted.detach().abs().max())


def test_mlstm_is_the_published_form_with_a_running_maximum() -> None:
    """arXiv 2405.04517, equations 19 to 27, stabilised as there: state scaled by e^{−m}, bound max(|n·q|, e^{−m})."""
    mixer, x = made("mlstm")
    H, d_k, d_v = 2, D // 4, D // 2
    q, k, v, o = mixer.in_proj(x).split((D // 2, D // 2, D, D), dim=-1)
    i, f = (x @ mixer.w_gates.T + torch.cat((mixer.b_i, mixer.b_f))).chunk(2, dim=-1)
    i, f = 15 * torch.tanh(i / 15), 15 * torch.tanh(f / 15)
    c = torch.zeros(2, H, d_k, d_v, dtype=torch.float64)
    n, m = torch.zeros(2, H, d_k, dtype=torch.float64), torch.full((2, H), -math.inf, dtype=torch.float64)
    rows = []
    for t in range(T):
        log_f = torch.nn.functional.logsigmoid(f[:, t])
        top = torch.maximum(log_f + m, i[:, t])
        keep, add = (log_f + m - top).exp(), (i[:, t] - top).exp()
        key = k[:, t].unflatten(-1, (H, d_k)) / d_k**0.5
        c = keep[..., None, None] * c + add[..., None, None] * key[..., None] * v[:, t].unflatten(-1, (H, 1, d_v))
        n, m = keep[..., None] * n + add[..., None] * key, top
        query = q[:, t].unflatten(-1, (H, d_k))
        bound = torch.maximum((n * query).sum(-1).abs(), (-m).exp())
        rows.append(torch.einsum("bhkv,bhk->bhv", c, query) / bound[..., None])
    h = torch.stack(rows, dim=1)
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    assert close(mixer(x), mixer.out_proj(torch.sigmoid(o) * h.flatten(2) * mixer.gain))


def test_mlstm_costs_what_the_paper_says_and_starts_with_gates_that_read_nothing() -> None:
    mixer: Any = build("mlstm", 64, T, heads=4)
    assert sum(p.numel() for p in mixer.parameters()) == 4 * 64**2 + 2 * 4 * 65 + 64
    assert float(mixer.w_gates.detach().abs().max()) == 0
    assert mixer.b_f.tolist() == pytest.approx([3, 4, 5, 6])


@pytest.mark.parametrize(("dim", "states"), [(64, 16), (128, 16), (256, 64)])
def test_mamba2_solves_its_width_for_the_budget(dim: int, states: int) -> None:
    mixer: Any = build("mamba2", dim, T, heads=4)
    assert mixer.config.states == states
    assert mixer.out_proj.in_features == 4 * mixer.config.d_v
    assert abs(sum(p.numel() for p in mixer.parameters()) / (4 * dim**2) - 1) < 0.05


def test_mamba2_starts_with_steps_and_rates_of_the_published_range() -> None:
    torch.manual_seed(0)
    mixer: Any = build("mamba2", 256, T, heads=16)
    step, rate = torch.nn.functional.softplus(mixer.b_delta.detach()), mixer.a_log.detach().exp()
    assert 1e-3 <= float(step.min()) < float(step.max()) <= 1e-1
    assert 1 <= float(rate.min()) < float(rate.max()) <= 16


def test_mamba2_without_its_convolution_has_no_taps() -> None:
    mixer, x = made("mamba2", convolution=False)
    assert mixer.taps is None
    state = mixer.init_state(2, T)
    assert set(state.tensors) == {"s_BHNp"}
    rows = []
    for t in range(T):
        y, state = mixer.step(x[:, t], state)
        rows.append(y)
    assert close(torch.stack(rows, dim=1), mixer(x))


@pytest.mark.parametrize(("dim", "heads"), [(64, 2), (96, 4), (128, 4), (192, 6), (768, 12)])
def test_kda_solves_one_width_for_the_budget(dim: int, heads: int) -> None:
    mixer: Any = build("kda", dim, T, heads=heads)
    d = mixer.config.d_v
    assert mixer.config.d_k == d
    counted = sum(p.numel() for p in mixer.parameters())
    assert counted == 4 * dim * heads * d + 2 * d * (dim + heads * d) + dim * heads + heads + 14 * heads * d + d
    assert abs(counted / (4 * dim**2) - 1) < 0.05


def test_kda_decays_each_key_channel_at_its_own_rate() -> None:
    mixer, x = made("kda")
    log_decay = mixer._project(x)[2].detach()
    assert log_decay.shape == (2, T, 2, mixer.config.d_k)
    assert float(log_decay.max()) < 0
    assert float(log_decay.std(-1).min()) > 0


def test_kda_starts_with_steps_and_rates_of_the_published_range() -> None:
    torch.manual_seed(0)
    mixer: Any = build("kda", 256, T, heads=16)
    step, rate = torch.nn.functional.softplus(mixer.b_delta.detach()), mixer.a_log.detach().exp()
    assert 1e-3 <= float(step.min()) < float(step.max()) <= 1e-1
    assert 1e-2 <= float(rate.min()) < float(rate.max()) <= 16


@pytest.mark.parametrize(("dim", "heads", "rank", "values"), [(64, 2, 4, 46), (96, 3, 6, 72), (128, 4, 8, 100)])
def test_rwkv7_solves_its_value_width_with_ranks_tied_to_the_width(
    dim: int, heads: int, rank: int, values: int
) -> None:
    mixer: Any = build("rwkv7", dim, T, heads=heads)
    assert (mixer.config.rank, heads * mixer.config.d_v) == (rank, values)
    counted = sum(p.numel() for p in mixer.parameters())
    assert counted == 2 * dim * (dim + values) + rank * (5 * dim + values) + 11 * dim + 2 * values
    assert abs(counted / (4 * dim**2) - 1) < 0.05


def test_rwkv7_starts_at_zero_with_the_published_decays_and_shifts() -> None:
    mixer: Any = build("rwkv7", 64, T, heads=2)
    assert float(mixer(torch.randn(2, T, 64)).detach().abs().max()) == 0
    assert [float(x) for x in mixer.w_start.detach()[[0, 31, 32, 63]]] == pytest.approx(
        [-8.0, -3 + 6 * 31 / 63, -8 + 6 * 32 / 63, 3.0], abs=1e-5
    )
    assert [float(x) for x in mixer.mu.detach()[:, 32]] == pytest.approx(
        [1 - 0.5**p for p in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)]
    )
    assert float(mixer.k_k.detach().mean()) == pytest.approx(0.71)


def test_rwkv7_keeps_more_than_half_of_each_channel_per_token() -> None:
    mixer, x = made("rwkv7")
    kept = mixer._project(mixer._maps(mixer._mixed(1e3 * x, x), slice(None)), slice(None)).log_w.exp().detach()
    assert math.exp(-math.exp(-0.5)) - 1e-12 <= float(kept.min()) < float(kept.max()) <= 1


def test_rwkv7_removes_what_it_stored_under_a_key_that_comes_again() -> None:
    """Without decay, with a = 1 and κ = k/‖k‖, the first value is gone when the same key stores another one."""
    key = torch.nn.functional.normalize(torch.randn(1, 1, 1, 4, dtype=torch.float64), dim=-1).expand(1, 2, 1, 4)
    v, none = torch.randn(1, 2, 1, 3, dtype=torch.float64), torch.zeros(1, 2, 1, 4, dtype=torch.float64)
    assert close(memory_read(Projected(key, key, v, none, key, key, v)), v)


@names
@pytest.mark.parametrize("causal", [True, False])
def test_decays_far_below_the_smallest_number_are_finite_and_leave_the_own_token(name: str, causal: bool) -> None:
    mixer, x = made(name, causal)
    rate = {"mlstm": "b_f", "rwkv7": "w_start"}.get(name, "a_log")
    torch.nn.init.constant_(getattr(mixer, rate), -1e4 if name == "mlstm" else 12.0)
    x.requires_grad_()
    y = mixer(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert bool(y.isfinite().all())
    assert bool(gradient.isfinite().all())


@names
@pytest.mark.parametrize("causal", [True, False])
def test_padding_leaves_the_state_empty(name: str, causal: bool) -> None:
    mixer, x = made(name, causal)
    padded = torch.cat((1e3 * torch.ones(2, 7, D, dtype=torch.float64), x), dim=1)
    mask = torch.arange(T + 7).expand(2, -1) >= 7
    assert close(mixer(padded, Context(mask_BT=mask))[:, 7:], mixer(x))


@names
def test_one_head_cannot_read_both_ways(name: str) -> None:
    with pytest.raises(MixerError, match="at least 2 heads"):
        build(name, D, T, causal=False, heads=1)
