"""FEM's low-rank convolution is its formula, token by token, with its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

import kernels.low_rank as low_rank
from kernels.cpu.call import recorded
from tests.tolerances import FP32, FP64

pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("tokens", "channels", "rows"), [(1, 5, 3), (70, 5, 3), (33, 16, 9), (3, 130, 12)])
def test_the_normed_projection_is_a_layer_norm_and_a_product(tokens: int, channels: int, rows: int) -> None:
    x, w = normal(2, tokens, channels, seed=0), normal(rows, channels, seed=1)
    shifted = 3 * x + 100.0
    wanted = layer_norm(shifted, (channels,)) @ w.T
    assert torch.allclose(low_rank.normed_projection(shifted, w), wanted, rtol=0, atol=FP64)
    assert torch.autograd.gradcheck(low_rank.normed_projection, (x, w), fast_mode=True)


def test_the_normed_projection_is_computed_in_fp64_whatever_the_dtype_of_its_input() -> None:
    x, w = (t.detach().float().requires_grad_() for t in (normal(2, 70, 5, seed=0), normal(3, 5, seed=1)))
    wide = [t.detach().double().requires_grad_() for t in (x, w)]
    out, wanted = low_rank.normed_projection(x, w.double()), layer_norm(wide[0], (5,)) @ wide[1].T
    assert out.dtype == torch.float64
    assert torch.allclose(out, wanted, rtol=0, atol=FP64)
    assert torch.equal(low_rank.normed_projection(x, w), out.float())
    grads, expected = torch.autograd.grad(out.sin().sum(), (x, w)), torch.autograd.grad(wanted.sin().sum(), wide)
    for grad, exact in zip(grads, expected, strict=True):
        assert grad.dtype == torch.float32
        assert float((grad - exact).abs().max()) <= FP32 * float(exact.abs().max())


def loop(given: Tensor, causal: bool, mask: Tensor) -> Tensor:
    """The formula for one channel of one token after the other."""
    B, T, R = *given.shape[:2], given.shape[2] // 3
    a, u, s = given.unflatten(-1, (3, R)).unbind(-2)
    h: list[list[list[Tensor]]] = [[[torch.zeros(()) for _ in range(R)] for _ in range(T)] for _ in range(B)]
    for b in range(B):
        for r in range(R):
            state = given.new_zeros(())
            backwards = not causal and r >= R - R // 2
            for t in reversed(range(T)) if backwards else range(T):
                if mask[b, t]:
                    state = state / (1 + a[b, t, r].exp()) + u[b, t, r]
                h[b][t][r] = state
    states = torch.stack([torch.stack([torch.stack(token) for token in tokens]) for tokens in h])
    plus = torch.log1p(s.exp())
    centred = states - states.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normed * plus / (plus.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("tokens", "rank"), [(1, 2), (13, 2), (20, 3), (9, 5)])
def test_the_scan_is_its_formula_token_by_token(causal: bool, tokens: int, rank: int) -> None:
    given = normal(3, tokens, 3 * rank, seed=tokens)
    mask = torch.ones(3, tokens, dtype=torch.bool)
    mask[0, : tokens // 2] = False
    mask[1, tokens - tokens // 3 :] = False
    wanted = loop(given, causal, mask)
    found = low_rank.low_rank_scan(given, causal, mask, torch.float64)
    pull = normal(*wanted.shape, seed=1).detach()
    assert torch.allclose(found, wanted, rtol=0, atol=FP64)
    [got], [exact] = (torch.autograd.grad((y * pull).sum(), given) for y in (found, wanted))
    assert float((got - exact).abs().max()) <= FP64 * float(exact.abs().max())
    everywhere = low_rank.low_rank_scan(given, causal, None, torch.float64)
    assert torch.equal(everywhere, low_rank.low_rank_scan(given, causal, torch.ones_like(mask), torch.float64))


@pytest.mark.parametrize("extreme", [-1000.0, 1000.0])
def test_decays_and_scales_at_the_ends_of_their_range_stay_finite(extreme: float) -> None:
    given = normal(2, 9, 6, seed=0).detach()
    for columns in (slice(0, 2), slice(4, 6)):
        ends = given.clone()
        ends[..., columns] = extreme
        ends.requires_grad_()
        y = low_rank.low_rank_scan(ends, True, None, torch.float64)
        [grad] = torch.autograd.grad(y.sum(), ends)
        assert bool(y.isfinite().all()), "results"
        assert bool(grad.isfinite().all()), "gradients"


def test_nan_stays_visible() -> None:
    for channel in range(6):
        given = normal(1, 9, 6, seed=0).detach()
        given[0, 4, channel] = math.nan
        assert bool(low_rank.low_rank_scan(given, True)[0, 4:].isnan().any()), channel


def test_a_channel_keeps_what_it_holds_while_its_decay_is_one_and_forgets_it_at_zero() -> None:
    given = torch.zeros(1, 3, 6, dtype=torch.float64)
    given[0, :, 0], given[0, 0, 2] = -1000.0, 1.0  # the first channel keeps its input
    given[0, :, 1], given[0, 0, 3] = 1000.0, 5.0  # the second forgets its own
    y = low_rank.low_rank_scan(given, True, None, torch.float64)[0]
    assert torch.equal(y[1], y[2])
    assert torch.allclose(y[0], -y[1], rtol=0, atol=1e-4)  # the larger of the two was the second channel


def test_the_compiled_forms_run_where_there_is_a_library(cpp_or_pytorch: str) -> None:
    x, w = normal(2, 9, 8, seed=0), normal(6, 8, seed=1)
    with recorded() as names:
        low_rank.low_rank_scan(low_rank.normed_projection(x.float(), w), False).sum().backward()
    forward = {"normed_projection", "low_rank_scan"}
    wanted = forward | {f"{name}_backward" for name in forward}
    assert names & wanted == (wanted if cpp_or_pytorch == "c++" else set())


@pytest.mark.parametrize("channels", [2, 7])
def test_channels_that_are_not_three_equal_parts_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"{channels} were given"):
        low_rank.low_rank_scan(normal(2, 5, channels, seed=0), True)


def test_a_mask_of_whole_numbers_means_what_a_mask_of_truth_values_means() -> None:
    given, mask = normal(2, 9, 6, seed=0), torch.arange(18).view(2, 9) % 4 > 0
    found = low_rank.low_rank_scan(given, True, mask.long())
    assert torch.equal(found, low_rank.low_rank_scan(given, True, mask))
    assert bool(found.any())
