"""The Triton kernels of the scans against recurrences in fp64: values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.gpu import linear_exact
from kernels.gpu.linear import decayed_sums
from kernels.gpu.scan import diagonal_scan
from kernels.gpu.selective import selective_sums
from kernels.linear.exact import _by_pytorch
from tests.kernels.gpu.interpreted.comparing import assert_close
from tests.kernels.test_scans import decay_of, decayed_by_loop, dynamics, normal, recurrence, selective_by_loop
from tests.tolerances import FP32_SCAN

pytestmark = pytest.mark.slow
KINDS = ("none", "one per head", "one per channel")


def exact_read(log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return linear_exact.exact_read(log_q, log_k, log_decay, v, u, causal=True)


def assert_same(
    fast: Callable[..., object],
    slow: Callable[..., object],
    inputs: Sequence[Tensor | None],
    fraction: float = FP32_SCAN,
    upstream: float = 1.0,
) -> None:
    """Results and gradients of the fp32 kernel against those of the fp64 loop."""
    leaves = [None if x is None else x.detach().float().requires_grad_() for x in inputs]
    wide = [None if x is None else x.detach().double().requires_grad_() for x in leaves]
    got, wanted = (y if isinstance(y, tuple) else (y,) for y in (fast(*leaves), slow(*wide)))
    draw = torch.Generator().manual_seed(3)
    weights = [upstream * torch.randn(y.shape, generator=draw, dtype=torch.float64) for y in wanted]
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert_close(f"result {i}", a, b, fraction)
    to = [[x for x in xs if x is not None] for xs in (leaves, wide)]
    gradients = [
        torch.autograd.grad(sum((y * w).sum() for y, w in zip(ys, weights, strict=True)), xs)
        for ys, xs in zip((got, wanted), to, strict=True)
    ]
    for i, (a, b) in enumerate(zip(*gradients, strict=True)):
        assert_close(f"gradient {i}", a, b, 4 * fraction)


@pytest.mark.parametrize(("tokens", "reverse"), [(70, True), *((t, r) for t in (1, 64, 256) for r in (False, True))])
def test_diagonal_scan_is_the_recurrence(tokens: int, reverse: bool) -> None:
    a, x = normal(2, tokens, 18).sigmoid(), normal(2, tokens, 18, seed=1)
    a[0], a[1, :, 1] = 0.0, 1.0

    def slow(a: Tensor, x: Tensor) -> Tensor:
        return recurrence(a.flip(1), x.flip(1)).flip(1) if reverse else recurrence(a, x)

    assert_same(lambda a, x: diagonal_scan(a, x, reverse), slow, (a, x))


def test_diagonal_scan_takes_double_precision() -> None:
    a, x = normal(2, 70, 3).sigmoid(), normal(2, 70, 3, seed=1)
    assert_close("scan", diagonal_scan(a, x), recurrence(a, x), 1e-12)


@pytest.mark.parametrize(
    ("kind", "tokens", "strength"),
    [
        ("one per head", 5, 0.1),
        *((k, t, s) for k in KINDS for t, s in ((1, 1.0), (17, 0.01), (17, 100.0))),
    ],
)
def test_decayed_sums_are_the_recurrence(kind: str, tokens: int, strength: float) -> None:
    q, k, v = (normal(2, tokens, 2, w, seed=i) for i, w in enumerate((4, 4, 3)))
    assert_same(decayed_sums, decayed_by_loop, (q, k, v, decay_of(kind, tokens, strength)))


@pytest.mark.parametrize("kind", KINDS)
def test_wide_keys_are_summed_in_pieces(kind: str) -> None:
    q, k, v = (normal(2, 5, 2, w, seed=i) for i, w in enumerate((67, 67, 3)))
    decay = decay_of(kind, 5, 0.1)
    if decay is not None and kind == "one per channel":
        decay = decay.repeat(1, 1, 1, 17)[..., :67]
    assert_same(decayed_sums, decayed_by_loop, (q, k, v, decay))


def cut(decay: Tensor | None) -> Tensor | None:
    return None if decay is None else decay[:1, :, :1]


@pytest.mark.parametrize(("kind", "tokens"), [("none", 256), ("one per head", 130), ("one per channel", 40)])
def test_decayed_sums_continue_across_chunks_and_blocks_of_channels(kind: str, tokens: int) -> None:
    q, k, v = (normal(1, tokens, 1, w, seed=i) for i, w in enumerate((4, 4, 35)))
    assert_same(decayed_sums, decayed_by_loop, (q, k, v, cut(decay_of(kind, tokens, 0.1))))


def test_a_weak_decay_after_strong_ones_has_its_own_effect() -> None:
    for width in (1, 4):
        decay = torch.full((1, 36, 1, width), -1000.0)
        decay[:, 20:] = -1e-3
        q = k = torch.ones(1, 36, 1, 4)
        v = torch.zeros(1, 36, 1, 1)
        v[:, 0], v[:, 24] = 1e30, 1.0
        out = decayed_sums(q, k, v, decay)[0, :, 0, 0].double()
        assert bool((out[1:24] == 0).all())
        assert_close("remainder", out[24:], 4 * torch.exp(-1e-3 * torch.arange(12, dtype=torch.float64)), 1e-6)


@pytest.mark.parametrize("tokens", [1, 5, 33, 64])
def test_selective_sums_are_the_recurrence(tokens: int) -> None:
    assert_same(selective_sums, selective_by_loop, dynamics(tokens))


def test_selective_sums_take_any_number_of_states_and_inputs() -> None:
    made = dynamics(5)
    made[1], made[2], made[3] = (x[..., :3].contiguous() if i else x[:3] for i, x in enumerate(made[1:4]))
    made[4] = normal(2, 5, 3, 3)
    assert_same(selective_sums, selective_by_loop, made)


def log_reads(log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs at once."""
    total = torch.zeros_like(log_k[..., :1]) if log_decay is None else log_decay.cumsum(1)
    hidden = torch.ones(v.shape[1], v.shape[1], dtype=torch.bool).triu(1)[:, :, None]
    gaps = (total[:, :, None] - total[:, None]).clamp(max=0.0)
    pairs = (log_q[:, :, None] + log_k[:, None] + gaps).logsumexp(-1)
    log_p = pairs.masked_fill(hidden, -torch.inf).log_softmax(2)
    return torch.einsum("btih,bihd->bthd", log_p.exp(), v), (log_p[..., None] + u[:, None]).logsumexp(2)


@pytest.mark.parametrize(
    ("kind", "size", "tokens"),
    [
        ("none", 0.1, 2),
        *((k, s, 18) for k in KINDS for s in (0.1, 100.0)),
    ],
)
def test_exact_reads_are_the_formula_for_any_weights_and_values(kind: str, size: float, tokens: int) -> None:
    log_q, log_k = normal(1, tokens, 2, 4), 10 * normal(1, tokens, 2, 4, seed=1)
    v, decay = normal(1, tokens, 2, 3, seed=2), decay_of(kind, tokens, 1.0)
    inputs = (log_q, log_k, decay[:1] if decay is not None else None, v, size * normal(1, tokens, 2, 3, seed=3))
    assert_same(exact_read, log_reads, inputs, 4 * FP32_SCAN if size > 1.0 else FP32_SCAN)


def test_exact_reads_continue_across_blocks_of_channels() -> None:
    log_q, log_k, v = normal(1, 6, 1, 4), normal(1, 6, 1, 4, seed=1), normal(1, 6, 1, 19, seed=2)
    assert_same(exact_read, log_reads, (log_q, log_k, None, v, 50 * v))


@pytest.mark.parametrize("to_key", [0.0, -1.0])
@pytest.mark.parametrize("step", [40.0, 200.0])
def test_exact_reads_survive_a_jump_of_keys_and_values_under_a_huge_upstream(step: float, to_key: float) -> None:
    log_q, log_k, v = normal(1, 12, 1, 4), normal(1, 12, 1, 4, seed=1), normal(1, 12, 1, 3, seed=2)
    jump = torch.where(torch.arange(12) < 7, -step, step)[:, None, None]
    assert_same(exact_read, log_reads, (log_q, log_k + to_key * jump, None, v, v + jump), 1e-4, upstream=65_536.0)


def test_both_implementations_agree_on_hidden_tokens() -> None:
    log_q, log_k, v = (normal(1, 12, 2, w, seed=i).float() for i, w in enumerate((4, 4, 3)))
    log_k[:, :7] = -1e9
    inputs = (log_q, log_k, None, v, 50 * v, True)
    for a, b in zip(linear_exact.exact_read(*inputs), _by_pytorch(*inputs), strict=True):
        assert b is not None
        assert_close("rows", a[:, 7:], b[:, 7:].double(), FP32_SCAN)


def changed(x: Tensor, tokens: int) -> Tensor:
    """x with other, larger entries from a token on."""
    return torch.cat((x[:, :tokens], 100.0 * x[:, tokens:].flip(1)), 1)


def test_later_tokens_change_nothing_before_them() -> None:
    """In the chunk where they are, and in chunks before it: to the last digit."""
    q, k, v = (normal(1, 70, 1, w, seed=i).float() for i, w in enumerate((4, 4, 3)))
    decay, short = -normal(1, 70, 1, 1, seed=5).abs().float(), slice(0, 20)
    delta, a, b, c, x = (t.float() for t in dynamics(40))
    calls: list[tuple[Callable[..., object], list[Tensor], int]] = [
        (lambda a, x: diagonal_scan(a.sigmoid(), x), [normal(1, 70, 5).float(), normal(1, 70, 5, seed=1).float()], 66),
        (decayed_sums, [q, k, v], 66),
        (decayed_sums, [q, k, v, decay], 66),
        (decayed_sums, [q[:, short], k[:, short], v[:, short], decay[:, short].expand(-1, -1, -1, 4)], 18),
        (exact_read, [q[:, short], k[:, short], decay[:, short], v[:, short], 50 * v[:, short]], 18),
        (lambda delta, b, c, x: selective_sums(delta, a, b, c, x), [delta, b, c, x], 35),
    ]
    for fast, inputs, tokens in calls:
        for before, after in zip(parts(fast(*inputs)), parts(fast(*(changed(x, tokens) for x in inputs))), strict=True):
            assert torch.equal(before[:, :tokens], after[:, :tokens])
            assert not torch.equal(before, after)


def parts(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)
