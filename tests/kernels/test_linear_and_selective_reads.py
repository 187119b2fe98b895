"""Reads of linear, selective and channelwise priors against weights written out in fp64, and their decoding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.channelwise import channelwise_free_energy, channelwise_step
from kernels.linear import exact as linear_exact
from kernels.linear.exact import empty_state, exact_chunk, exact_read
from kernels.linear.free_energy import linear_free_energy, linear_read
from kernels.linear.weights import LinearWeights
from kernels.selective import exact as selective_exact
from kernels.selective.free_energy import selective_free_energy, selective_read
from tests.tolerances import FP32_SCAN, FP64

B, H, K, D, N = 2, 2, 4, 3, 4
CHUNK_EDGES = [1, 15, 16, 17, 40]
in_cpp_and_pytorch = pytest.mark.usefixtures("cpp_or_pytorch")
KINDS = ["none", "one per head", "one per channel"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got: Tensor, wanted: Tensor, fraction: float = FP64) -> bool:
    error, size = float((got.double() - wanted).detach().abs().max()), float(wanted.detach().abs().max())
    return error <= fraction * max(size, 1e-2)


def masked(logits_BTS: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """Normalised log-weights from logits `[B, T, S, …]`, −∞ where key s is not visible from row t."""
    tokens = logits_BTS.shape[1]
    visible = torch.ones(tokens, tokens, dtype=torch.bool)
    visible_BTS = (visible.tril() if causal else visible).expand(len(logits_BTS), -1, -1)
    if mask_BT is not None:
        visible_BTS = visible_BTS & mask_BT[:, None]
    return logits_BTS.masked_fill(~visible_BTS[(..., *[None] * (logits_BTS.dim() - 3))], -torch.inf).log_softmax(2)


def linear_log_weights(
    log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, causal: bool, mask_BT: Tensor | None = None
) -> Tensor:
    """`[B, T, S, H, 1]`: log Σ_c φ(q_t)_c φ(k_s)_c e^{G_tc − G_sc}, normalised over s."""
    gaps = torch.zeros(())
    if log_decay is not None:
        total = log_decay.cumsum(1)
        gaps = (total[:, :, None] - total[:, None]).clamp(max=0.0)
    return masked((log_q[:, :, None] + log_k[:, None] + gaps).logsumexp(-1, keepdim=True), causal, mask_BT)


def selective_log_weights(log_delta: Tensor, a: Tensor, log_b: Tensor, log_c: Tensor, log_skip: Tensor) -> Tensor:
    """`[B, T, S, E]`: log (Σ_n C_tn exp(Σ_{s<i≤t} Δ_i A_n) Δ_s B_sn + δ [s = t]), normalised over s."""
    total = (log_delta.exp()[:, :, None] * a).cumsum(1)  # [B, T, N, E]
    gaps = (total[:, :, None] - total[:, None]).clamp(max=0.0)
    terms = log_c[:, :, None, :, None] + gaps + (log_delta[:, :, None] + log_b[..., None])[:, None]
    own = torch.eye(log_delta.shape[1], dtype=torch.bool)[None, :, :, None]
    skip = torch.where(own, log_skip, -torch.inf)
    return masked(torch.logaddexp(terms.logsumexp(3), skip), causal=True)


def channelwise_log_weights(k: Tensor) -> Tensor:
    """`[B, T, S, E]`: k_s, normalised over s ≤ t."""
    return masked(k[:, None].expand(-1, k.shape[1], -1, -1), causal=True)


def reads(log_p: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(E_p[v], log E_p[exp(u)]) of values `[B, S, …]` under log-weights `[B, T, S, …]`."""
    return (log_p.exp() * v[:, None]).sum(2), (log_p + u[:, None]).logsumexp(2)


def linear_inputs(tokens: int, kind: str) -> tuple[Tensor, Tensor, Tensor | None]:
    width = {"none": 0, "one per head": 1, "one per channel": K}[kind]
    decay = -(normal(B, tokens, H, width, seed=7).abs() ** 3) if width else None
    return normal(B, tokens, H, K), 3 * normal(B, tokens, H, K, seed=1), decay


def selective_inputs(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    log_b, log_c = normal(B, tokens, N, seed=2), normal(B, tokens, N, seed=3)
    return normal(B, tokens, D) - 2, -normal(N, D, seed=1).abs(), log_b, log_c, normal(D, seed=4)


@pytest.mark.parametrize("size", [0.1, 100.0])
@pytest.mark.parametrize("tokens", CHUNK_EDGES)
@pytest.mark.parametrize(("kind", "causal"), [*((kind, True) for kind in KINDS), ("none", False)])
def test_exact_linear_reads_are_the_formula(kind: str, causal: bool, tokens: int, size: float) -> None:
    inputs, v, u = linear_inputs(tokens, kind), normal(B, tokens, H, D), size * normal(B, tokens, H, D, seed=5)
    wanted = reads(linear_log_weights(*inputs, causal), v, u)
    mean, log_mean = exact_read(*inputs, v, u, causal)
    assert log_mean is not None
    assert close(mean, wanted[0])
    assert close(log_mean, wanted[1])
    only_mean, nothing = exact_read(*inputs, v, None, causal)
    assert nothing is None
    assert close(only_mean, wanted[0])


@pytest.mark.parametrize("size", [0.1, 100.0])
@pytest.mark.parametrize("tokens", CHUNK_EDGES)
def test_exact_selective_reads_are_the_formula(tokens: int, size: float) -> None:
    inputs, v, u = selective_inputs(tokens), normal(B, tokens, D), size * normal(B, tokens, D, seed=5)
    mean, log_mean = selective_exact.exact_read(*inputs, v, u)
    wanted = reads(selective_log_weights(*inputs), v, u)
    assert log_mean is not None
    assert close(mean, wanted[0])
    assert close(log_mean, wanted[1])


FreeEnergy = Callable[[list[Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]
#: Inputs of the weights, v, β, the kernel, and the formula.
Case = tuple[list[Tensor], Tensor, Tensor, FreeEnergy, FreeEnergy]


def linear_case(tokens: int) -> Case:
    log_q, log_k, decay = linear_inputs(tokens, "one per channel")
    assert decay is not None

    def fast(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return linear_free_energy(LinearWeights.of(inputs[0], inputs[1], inputs[2], None), v, beta, True)

    def formula(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_mean = reads(linear_log_weights(inputs[0], inputs[1], inputs[2], True), v, beta * v)
        return mean, log_mean / beta

    return [log_q, log_k, decay], normal(B, tokens, H, D, seed=5), 1 + normal(H, D, seed=6).abs(), fast, formula


def selective_case(tokens: int) -> Case:
    def fast(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return selective_free_energy((inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]), v, beta)

    def formula(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_mean = reads(selective_log_weights(*inputs), v, beta * v)
        return mean, log_mean / beta

    return [*selective_inputs(tokens)], normal(B, tokens, D, seed=5), 1 + normal(D, seed=6).abs(), fast, formula


def channelwise_case(tokens: int) -> Case:
    def fast(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return channelwise_free_energy(inputs[0], v, beta)

    def formula(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_mean = reads(channelwise_log_weights(inputs[0]), v, beta * v)
        return mean, log_mean / beta

    inputs = [3 * normal(B, tokens, D)]
    return inputs, normal(B, tokens, D, seed=5), 1 + normal(D, seed=6).abs(), fast, formula


cases = pytest.mark.parametrize(
    "case", [linear_case, selective_case, channelwise_case], ids=["linear", "selective", "channelwise"]
)


@cases
@in_cpp_and_pytorch
@pytest.mark.parametrize("size", [1.0, 60.0], ids=["in range", "out of range"])
@pytest.mark.parametrize("tokens", [1, 20, 65])
def test_free_energies_and_their_gradients_are_the_formula(
    case: Callable[[int], Case], size: float, tokens: int
) -> None:
    inputs, v, beta, fast, formula = case(tokens)
    leaves = [x.requires_grad_() for x in (*inputs, size * v, beta)]
    found, wanted = (function(leaves[:-2], leaves[-2], leaves[-1]) for function in (fast, formula))
    assert all(close(got, right) for got, right in zip(found, wanted, strict=True))
    upstream = [normal(*y.shape, seed=8) for y in wanted]
    gradients = [torch.autograd.grad(y, leaves, upstream, allow_unused=True) for y in (found, wanted)]
    for got, right in zip(*gradients, strict=True):
        assert (got is None) == (right is None)
        assert got is None or right is None or close(got, right, 10 * FP64)


@cases
@in_cpp_and_pytorch
def test_small_beta_keeps_its_digits(
    case: Callable[[int], Case],
) -> None:
    """As β → 0 the free energy is the mean; a logarithm of a mean of exponentials would cancel."""
    inputs, v, beta, fast, _ = case(20)
    mean, free_energy = fast([x.float() for x in inputs], v.float(), torch.full_like(beta, 1e-7).float())
    assert close(free_energy, mean.double(), FP32_SCAN)


@cases
@in_cpp_and_pytorch
def test_a_value_out_of_range_changes_no_bit_before_it(
    case: Callable[[int], Case],
) -> None:
    inputs, v, beta, fast, _ = case(50)
    late = v.clone()
    late[:, 40] = 1e4
    before, after = (fast([t.float() for t in inputs], x.float(), beta.float()) for x in (v, late))
    assert all(torch.equal(one[:, :40], other[:, :40]) for one, other in zip(before, after, strict=True))


@cases
@in_cpp_and_pytorch
def test_a_jump_leaves_finite_gradients_under_a_huge_upstream(
    case: Callable[[int], Case],
) -> None:
    inputs, v, beta, fast, _ = case(40)
    jump = torch.where(torch.arange(40) < 19, -100.0, 100.0).view(1, 40, *[1] * (v.dim() - 2))
    leaves = [x.float().requires_grad_() for x in (*inputs, v + jump, beta)]
    results = fast(leaves[:-2], leaves[-2], leaves[-1])
    found = torch.autograd.grad(results, leaves, [65_536.0 * torch.ones_like(y) for y in results])
    assert all(bool(x.isfinite().all()) for x in (*results, *found))


@in_cpp_and_pytorch
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("faint", [False, True], ids=["ordinary features", "faint features"])
def test_masked_keys_carry_no_weight_in_linear_reads(causal: bool, faint: bool) -> None:
    log_q, log_k, decay = linear_inputs(20, "one per head" if causal else "none")
    log_k = log_k - 30.0 if faint else log_k
    mask = torch.rand(B, 20, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[:, 0] = True
    v, beta = torch.where(mask[..., None, None], normal(B, 20, H, D), 1e3), 1 + normal(H, D, seed=6).abs()
    weights = LinearWeights.of(log_q, log_k, decay, mask)
    kept = None if decay is None else decay * mask[..., None, None]
    mean, log_mean = reads(linear_log_weights(log_q, log_k, kept, causal, mask), v, beta * v)
    rows = mask[..., None, None]
    found_mean, found = linear_free_energy(weights, v, beta, causal)
    assert close(found_mean * rows, mean * rows)
    assert close(found * rows, log_mean / beta * rows)
    assert close(linear_read(weights, v, causal) * rows, mean * rows)


def test_selective_reads_of_several_inputs_share_their_weights() -> None:
    inputs, v = selective_inputs(20), normal(B, 20, 2, D, seed=5)
    log_p = selective_log_weights(*inputs)
    wanted = torch.stack([(log_p.exp() * v[:, None, :, c]).sum(2) for c in range(2)], 2)
    assert close(selective_read(inputs, v), wanted)


def test_decoding_a_linear_prior_token_by_token_gives_its_rows() -> None:
    log_q, log_k, decay = linear_inputs(20, "one per channel")
    assert decay is not None
    v, u = normal(B, 20, H, D), 10 * normal(B, 20, H, D, seed=5)
    rows = exact_read(log_q, log_k, decay, v, u, True)
    state = empty_state(B, H, K, D, v, free_energy=True)
    for t in range(20):
        inputs = (x[:, t : t + 1].transpose(1, 2) for x in (log_q, log_k, decay, v, u))
        mean, log_mean, state = exact_chunk(state, *inputs)
        for got, wanted in zip((mean, log_mean), rows, strict=True):
            assert got is not None
            assert wanted is not None
            assert close(got[:, :, 0], wanted[:, t])


def test_decoding_a_selective_prior_token_by_token_gives_its_rows() -> None:
    log_delta, a, log_b, log_c, log_skip = selective_inputs(20)
    v, u = normal(B, 20, D), 10 * normal(B, 20, D, seed=5)
    rows = selective_exact.exact_read(log_delta, a, log_b, log_c, log_skip, v, u)
    state = selective_exact.empty_state(B, N, D, v, free_energy=True)
    for t in range(20):
        found = selective_exact.exact_step(
            state, log_delta[:, t], a, log_b[:, t], log_c[:, t], log_skip, v[:, t], u[:, t]
        )
        state = found[2]
        for got, wanted in zip(found[:2], rows, strict=True):
            assert got is not None
            assert wanted is not None
            assert close(got, wanted[:, t])


def test_decoding_a_channelwise_prior_token_by_token_gives_its_rows() -> None:
    k, v, beta = 3 * normal(B, 20, D), normal(B, 20, D, seed=5), 1 + normal(D, seed=6).abs()
    mean, free_energy = channelwise_free_energy(k, v, beta)
    state = {"n_BE": k.new_full((B, D), linear_exact.NOTHING), "m_BE": k.new_zeros(B, D), "f_BE": k.new_zeros(B, D)}
    for t in range(20):
        channelwise_step(state, k[:, t], v[:, t], beta * v[:, t])
        assert close(state["m_BE"], mean[:, t])
        assert close(state["f_BE"] / beta, free_energy[:, t])
