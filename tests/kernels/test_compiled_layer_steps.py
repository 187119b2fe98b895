"""Steps of decoding that write their state equal PyTorch's operations, and take no call that they must not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels.decoding.convolutions import convolution_step, silu_convolution_step
from kernels.decoding.layer import Decays, Gates, layer_step, to_logarithms
from kernels.decoding.memory import Around, compiled_memory_step, memory_step
from kernels.linear import exact
from kernels.tools import steps_in_pytorch as reference
from tests.kernels.layer_steps import (
    Step,
    allowed,
    assert_takes_no_other_call,
    broken,
    doubled,
    doubled_state,
    drawn,
    error,
)
from tests.tolerances import FP32, FP64

B, H, K, W, J, R = 2, 3, 6, 21, 4, 2
STEPS = 20
EPS = (1e-5, 1e-5, 1e-5)
Given = tuple[Tensor, Decays | None, Gates | None]
DTYPES = (torch.float64, torch.float32)

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def arounds(draw: Callable[..., Tensor]) -> dict[str, tuple[Around, int]]:
    """Layers by name, each with the value width of its state."""
    gate, turn = draw(B, 2 * H * W)[:, : H * W], (draw(K // 2), draw(K // 2))
    return {
        "plain": (Around(), W),
        "retnet": (Around(scale=0.3, turn=turn, gate_BE=gate, norm="layer", gated="silu", eps=1e-5), W),
        "delta": (Around(unit=1e-6, scale=0.3, gain=draw(W), norm="rms", eps=1e-5), W),
        "mlstm": (
            Around(gate_BE=gate, gain=draw(H * W), normaliser=True, norm="layer", gated="sigmoid", eps=1e-6),
            W + 1,
        ),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decays", [0, 1, K])
@pytest.mark.parametrize("corrects", [False, True], ids=["sums", "delta rule"])
@pytest.mark.parametrize("kind", ["plain", "retnet", "delta", "mlstm"])
def test_a_step_of_a_linear_memory_equals_pytorchs(kind, corrects, decays, dtype):
    if corrects and kind == "mlstm":
        return  # a memory with a normaliser is not corrected
    draw = drawn(dtype)
    around, width = arounds(draw)[kind]
    memory, expected = torch.zeros(B, H, K, width, dtype=dtype), torch.zeros(B, H, K, width, dtype=torch.float64)
    wide = replace(around, **{name: doubled(value) for name, value in vars(around).items()})
    for _ in range(STEPS):
        q, k, v = draw(B, H, K), draw(B, H, K) / 3, draw(B, H, W)
        decay, beta = -draw(B, H, decays).abs() if decays else None, draw(B, H).sigmoid() if corrects else None
        o = compiled_memory_step(memory, q, k, v, decay, beta, around)
        q, k, v, decay, beta = doubled((q, k, v, decay, beta))
        wanted, expected = reference.memory(expected, q, k, v, decay, beta, wide)
        assert error(o, wanted) <= allowed(dtype)
        assert error(memory, expected) <= allowed(dtype)


def test_memories_of_heads_that_share_their_keys_and_inputs_in_any_layout():
    draw = drawn()
    memory, shared, v = draw(B, H, K, W), draw(B, 1, K).expand(-1, H, -1), draw(W, H, B).permute(2, 1, 0)
    decay = draw(H, B, 1).transpose(0, 1)
    wanted, after = reference.memory(memory, shared, shared, v, decay, None)
    assert error(compiled_memory_step(memory, shared, shared, v, decay, None), wanted) <= FP64
    assert error(memory, after) <= FP64


def layer_inputs(draw: Callable[..., Tensor], scale: float, kind: str, free: bool, dtype: torch.dtype) -> Given:
    z = draw(B, H * (2 * K + (3 if free else 1) * W)) * scale
    decays = {
        "none": None,
        "per head": Decays(draw(B, H), draw(H), 16.0),
        "per channel": Decays(draw(B, H * K), draw(H * K), 16.0),
        "fixed": Decays(-draw(H).abs()),
    }[kind]
    gates = Gates(draw(B, R), draw(R, z.shape[1]) / 3, draw(H, W).abs() + 0.01) if free else None
    return z, decays, gates


def widened(given: Given) -> Given:
    z, decays, gates = given
    return (
        z.double(),
        None if decays is None else replace(decays, given=doubled(decays.given), bias=doubled(decays.bias)),
        None if gates is None else Gates(doubled(gates.s_BR), doubled(gates.p_RC), doubled(gates.beta_Hd)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("free", [False, True], ids=["mean", "free energy"])
@pytest.mark.parametrize("kind", ["none", "per head", "per channel", "fixed"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_a_layers_step_equals_the_step_in_the_log_domain(scale, kind, free, dtype):
    draw = drawn(dtype)
    state = exact.empty_state(B, H, K, W, draw(0), free)
    expected = exact.empty_state(B, H, K, W, draw(0).double(), free)
    for _ in range(STEPS):
        given = layer_inputs(draw, scale, kind, free, dtype)
        y = layer_step(state, *given)
        if y is None:  # a token out of range
            assert scale == 3.0
            y, state = reference.layer(state, *given)
        wanted, expected = reference.layer(expected, *widened(given))
        assert error(y, wanted) <= allowed(dtype)
    to_logarithms(state)
    assert all(error(state[name], expected[name]) <= allowed(dtype) for name in expected)


def test_a_token_out_of_range_leaves_the_state_to_the_log_domain():
    draw = drawn()
    state = exact.empty_state(B, H, K, W, draw(0), True)
    z, _, gates = layer_inputs(draw, 0.1, "none", True, torch.float64)
    for _ in range(3):
        assert layer_step(state, z, None, gates) is not None
    before = {name: x.clone() for name, x in state.items()}
    to_logarithms(before)
    far = z.clone()
    far[1, 2 * H * K + 5] = 1e5
    assert layer_step(state, far, None, gates) is None
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    far[1, 2 * H * K + 5] = float("nan")
    assert layer_step(state, far, None, gates) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_coded_exponents_keep_their_digits(dtype):
    """Every token has the same exponent, so its log-mean-exp is that exponent: tiny, or far below and above 0."""
    u_d = torch.tensor([-29.0, -15.0, -3.0, -0.8, -0.6, -1e-3, -1e-6, 0.0, 1e-6, 0.3, 5.0, 29.0], dtype=dtype)
    state = exact.empty_state(1, 1, 4, len(u_d), u_d, True)
    ones = torch.ones(1, 4, dtype=dtype)
    z = torch.cat((ones, ones, u_d[None], u_d[None] * 0 + 30.0, u_d[None]), dim=-1)  # λ = 1
    for _ in range(STEPS):
        y = layer_step(state, z, None, Gates(None, None, torch.ones(1, len(u_d), dtype=dtype)))
    to_logarithms(state)
    found = state["f_BHkd"][0, 0]
    relative = (found - u_d).abs() / u_d.abs().clamp(min=1e-12)
    assert y is not None
    assert float(relative.max()) <= 10 * (FP32 if dtype == torch.float32 else FP64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_in_the_log_domain_is_taken_over(dtype):
    draw = drawn(dtype)
    state = exact.empty_state(B, H, K, W, draw(0), True)
    state["n_BHk"], state["m_BHkd"] = draw(B, H, K) / 3, draw(B, H, K, W)
    state["f_BHkd"] = (20 * draw(B, H, K, W)).clamp(-29.9, 29.9)
    z, decays, gates = layer_inputs(draw, 0.5, "per head", True, dtype)
    z[:, H * K : 2 * H * K] = -60.0  # next to no weight: every entry of the state is compared by itself
    assert gates is not None
    given = z, decays, replace(gates, s_BR=None, p_RC=None)
    wanted, expected = reference.layer(doubled_state(state), *widened(given))
    assert error(layer_step(state, *given), wanted) <= allowed(dtype)
    to_logarithms(state)
    assert all(error(state[name], expected[name]) <= allowed(dtype) for name in expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("taps", [1, 2, J])
def test_a_step_of_a_short_convolution_equals_pytorchs(taps, biased, dtype):
    draw = drawn(dtype)
    w, bias, past = draw(taps, W), draw(W) if biased else None, draw(B, taps, W)[:, 1:].contiguous()
    if taps == 1:
        assert silu_convolution_step(past, draw(B, W), w, bias) is None  # nothing to keep
        return
    expected = past.double().clone()
    for _ in range(STEPS):
        x = draw(B, 2 * W)[:, W:]
        y = silu_convolution_step(past, x, w, bias)
        wanted, expected = reference.silu_convolution(expected, doubled(x), doubled(w), doubled(bias))
        assert error(y, wanted) <= allowed(dtype)
        assert torch.equal(past.double(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [2, 3, 7])
def test_a_step_of_fems_convolution_equals_pytorchs(rank, dtype):
    draw = drawn(dtype)
    weight, h = draw(3 * rank, W), torch.zeros(B, rank, dtype=dtype)
    for _ in range(STEPS):
        x, before = draw(B, W), h.clone()
        s = convolution_step(h, x, weight, EPS)
        wanted, after = reference.convolution(before, x, weight, EPS)
        assert error(s, wanted) <= allowed(dtype)
        assert error(h, after) <= allowed(dtype)


def calls() -> dict[str, Step]:
    """Steps by name, with what is done to their inputs."""
    draw = drawn()
    memory, h, past = draw(B, H, K, W), draw(B, R), draw(B, J - 1, W)
    token, x, weight, taps = (draw(B, H, K), draw(B, H, K), draw(B, H, W)), draw(B, W), draw(3 * R, W), draw(J, W)
    state = exact.empty_state(B, H, K, W, memory, False)
    z = draw(B, H * (2 * K + W))
    return {
        "memory_step": lambda change: compiled_memory_step(
            memory, change(token[0]), change(token[1]), change(token[2]), None, None
        ),
        "feature_step": lambda change: layer_step(state, change(z), None, None),
        "silu_convolution_step": lambda change: silu_convolution_step(past, change(x), taps, None),
        "convolution_step": lambda change: convolution_step(h, change(x), weight, EPS),
    }


@pytest.mark.parametrize("name", calls())
def test_a_step_takes_no_call_that_is_watched_or_of_other_shapes_or_dtypes(name):
    assert_takes_no_other_call(name, calls()[name])


def test_autograd_learns_that_a_state_has_changed():
    draw = drawn()
    memory, scale = draw(B, H, K, W), torch.ones((), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        product = (memory * scale).sum()
    memory_step(memory, draw(B, H, K), draw(B, H, K), draw(B, H, W))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_a_memory_that_is_differentiated_runs_in_pytorch():
    draw = drawn()
    memory, q = draw(B, H, K, W), draw(B, H, K).requires_grad_()
    before = memory.clone()
    with torch.enable_grad():
        o, after = memory_step(memory, q, draw(B, H, K), draw(B, H, W))
    assert o.requires_grad
    assert torch.equal(memory, before)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("name", ["memory_step", "feature_step", "silu_convolution_step", "convolution_step"])
def test_a_broken_value_is_shown_and_not_hidden(name):
    found = calls()[name](broken)
    assert found is not None
    assert found[0].isnan().all()


def test_inference_mode_takes_steps_too():
    draw = drawn()
    with torch.inference_mode():
        memory = torch.zeros(B, H, K, W, dtype=torch.float64)
        assert compiled_memory_step(memory, draw(B, H, K), draw(B, H, K), draw(B, H, W), None, None) is not None
        assert memory.abs().sum() > 0


@pytest.mark.parametrize("threads", [2, 3])
def test_a_step_is_the_same_on_any_number_of_threads(threads):
    draw, before = drawn(torch.float32), torch.get_num_threads()
    start, token = draw(32, 4, 32, 65), (draw(32, 4, 32), draw(32, 4, 32), draw(32, 4, 65))
    found = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            memory = start.clone()
            found.append((compiled_memory_step(memory, *token, None, None), memory))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True) if one is not None)
