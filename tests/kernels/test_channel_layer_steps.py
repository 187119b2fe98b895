"""Compiled steps of the selective state space, of AFT, of FEM over both, and of Taylor's polynomial equal PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels.decoding.channels import AXES, Selection, channel_layer_step, selective_layer_step
from kernels.decoding.layer import Gates, State, to_logarithms
from kernels.decoding.taylor import taylor_step
from kernels.linear.exact import NOTHING
from kernels.selective.exact import empty_state
from kernels.taylor import feature_count
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

B, D, H, N, RANK, R = 2, 19, 3, 5, 3, 2
STEPS = 20
DTYPES = (torch.float64, torch.float32)
#: Channels per head: fewer than a vector in all, a few vectors and a part of one, whole vectors.
WIDTHS = (1, 7, 16)
Draw = Callable[..., Tensor]
Inputs = tuple[Tensor, Tensor, Selection, Gates | None]

pytestmark = pytest.mark.usefixtures("compiled_kernels")
dtypes = pytest.mark.parametrize("dtype", DTYPES)
widths = pytest.mark.parametrize("d", WIDTHS)
means_and_free_energies = pytest.mark.parametrize("free", [False, True], ids=["mean", "free energy"])


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def gates_of(draw: Draw, d: int, projections: int) -> Gates:
    return Gates(draw(B, R), draw(R, projections * H * d) / 3, draw(H, d).abs() + 0.01)


def selection_of(draw: Draw, d: int) -> Selection:
    E = H * d
    weights = draw(RANK, D) / 4, draw(E, RANK), draw(E) - 2, draw(2 * N, D) / 4
    return Selection(*weights, draw(N, E), draw(E))


def selective_inputs(draw: Draw, selection: Selection, d: int, scale: float, free: bool) -> Inputs:
    z = draw(B, (3 if free else 1) * H * d) * scale
    return draw(B, D), z, selection, gates_of(draw, d, 3) if free else None


def wide(x: object) -> object:
    """The same in fp64."""
    if isinstance(x, (Selection, Gates)):
        return type(x)(*(doubled(value) for value in vars(x).values()))
    return doubled(x)


def selective_in_fp64(
    state: State, x: Tensor, z: Tensor, selection: Selection, gates: Gates | None
) -> tuple[Tensor, State]:
    wide_selection, wide_gates = wide(selection), wide(gates)
    assert isinstance(wide_selection, Selection)
    assert wide_gates is None or isinstance(wide_gates, Gates)
    return reference.selective_layer(state, x.double(), z.double(), H, wide_selection, wide_gates)


def channel_in_fp64(state: State, z: Tensor, gates: Gates | None) -> tuple[Tensor, State]:
    wide_gates = wide(gates)
    assert wide_gates is None or isinstance(wide_gates, Gates)
    return reference.channel_layer(state, z.double(), H, wide_gates)


def aft_state(d: int, like: Tensor, free: bool) -> State:
    shape = (B, H * d)
    state = {"n_BE": like.new_full(shape, NOTHING), "m_BE": like.new_zeros(shape)}
    return state | {"f_BE": like.new_zeros(shape)} if free else state


@dtypes
@means_and_free_energies
@widths
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_a_step_of_a_selective_layer_equals_the_step_in_the_log_domain(scale, d, free, dtype):
    draw = drawn(dtype)
    selection = selection_of(draw, d)
    state = empty_state(B, N, H * d, draw(0), free)
    expected = doubled_state(state)
    for _ in range(STEPS):
        x, z, _, gates = given = selective_inputs(draw, selection, d, scale, free)
        y = selective_layer_step(state, x, z, H, selection, gates)
        if y is None:  # a token out of range
            assert scale == 8.0
            y, state = reference.selective_layer(state, x, z, H, selection, gates)
        wanted, expected = selective_in_fp64(expected, *given)
        assert error(y, wanted) <= allowed(dtype)
    to_logarithms(state, AXES)
    assert all(error(state[name], expected[name]) <= allowed(dtype) for name in expected)


@dtypes
@means_and_free_energies
@widths
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_step_of_an_aft_layer_equals_pytorchs_at_values_of_any_size(scale, d, free, dtype):
    draw = drawn(dtype)
    state = aft_state(d, draw(0), free)
    expected = doubled_state(state)
    for _ in range(STEPS):
        z, gates = draw(B, (5 if free else 3) * H * d) * scale, gates_of(draw, d, 5) if free else None
        y = channel_layer_step(state, z, H, gates)
        wanted, expected = channel_in_fp64(expected, z, gates)
        assert error(y, wanted) <= allowed(dtype)
    assert all(error(state[name], expected[name]) <= allowed(dtype) for name in expected)


@dtypes
@pytest.mark.parametrize("d", [2, 6, 16])
def test_a_step_of_taylor_attention_equals_pytorchs(d, dtype):
    draw = drawn(dtype)
    sums = torch.zeros(B, H, feature_count(d), d + 1, dtype=dtype)
    expected = sums.double().clone()
    for position in range(STEPS):
        z, angles = draw(B, 3 * H * d), torch.arange(d // 2, dtype=torch.float64) * position
        y = taylor_step(sums, z, (angles.cos().to(dtype), angles.sin().to(dtype)))
        wanted, expected = reference.taylor(expected, z.double(), (angles.cos(), angles.sin()))
        assert error(y, wanted) <= allowed(dtype)
        assert error(sums, expected) <= allowed(dtype)


def test_a_selective_token_out_of_range_leaves_the_state_to_the_log_domain():
    draw, d = drawn(), 7
    selection = selection_of(draw, d)
    state = empty_state(B, N, H * d, draw(0), True)
    x, z, _, gates = selective_inputs(draw, selection, d, 0.1, True)
    for _ in range(3):
        assert selective_layer_step(state, x, z, H, selection, gates) is not None
    before = {name: tensor.clone() for name, tensor in state.items()}
    to_logarithms(before, AXES)
    z[1, 5] = 1e5
    assert selective_layer_step(state, x, z, H, selection, gates) is None
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    z[1, 5] = float("nan")
    assert selective_layer_step(state, x, z, H, selection, gates) is None


@dtypes
@pytest.mark.parametrize("logit", [-300.0, -60.0, -16.0, -15.0, 40.0])
def test_steps_and_weights_far_from_one_keep_their_digits(logit, dtype):
    """Step sizes, input weights and skips of e^−300 to 40: their logarithms are those of softplus."""
    draw, d = drawn(torch.float64), 7
    start = selection_of(draw, d)
    selection = Selection(start.w_down * 0, start.w_up, start.bias * 0 + logit, start.w_states, start.a_log, start.bias)
    selection = Selection(*(value.to(dtype) for value in vars(selection).values()))
    state = empty_state(B, N, H * d, draw(0).to(dtype), False)
    log_delta = torch.tensor(logit, dtype=torch.float64)
    log_delta = log_delta if logit < -40 else torch.nn.functional.softplus(log_delta).log()
    x, z = draw(B, D).to(dtype), draw(B, H * d).to(dtype)
    assert selective_layer_step(state, x, z, H, selection, None) is not None
    log_b = torch.nn.functional.softplus(x.double() @ selection.w_states.double().T).log()[:, :N]
    wanted = log_delta + log_b[..., None].expand(-1, -1, H * d)
    assert float(((state["n_BNE"] - wanted) / wanted.abs().clamp(min=1)).abs().max()) <= allowed(dtype)
    assert error(state["m_BNE"], z.double()[:, None].expand(-1, N, -1)) <= allowed(dtype)


@dtypes
@pytest.mark.parametrize("kind", ["selective", "aft"])
def test_means_of_one_exponent_are_that_exponent_however_small(kind, dtype):
    """Every token has the same exponent, so its log-mean-exp is that exponent: tiny, or far below and above 0."""
    u_d = torch.tensor([-29.0, -15.0, -3.0, -0.8, -0.6, -1e-3, -1e-6, 0.0, 1e-6, 0.3, 5.0, 29.0], dtype=dtype)
    d, draw, v = len(u_d), drawn(dtype), u_d.repeat(B, H)
    gates = Gates(None, None, torch.ones(H, d, dtype=dtype))
    if kind == "aft":
        state, name = aft_state(d, v, True), "f_BE"
    else:
        state, name = empty_state(B, N, H * d, v, True), f"f_{AXES}"
    selection = selection_of(draw, d)
    for _ in range(STEPS):
        if kind == "aft":
            y = channel_layer_step(state, torch.cat((v, draw(B, H * d), v, v, v), dim=1), H, gates)
        else:
            y = selective_layer_step(state, draw(B, D), torch.cat((v, v, v), dim=1), H, selection, gates)
        assert y is not None
    to_logarithms(state, AXES)
    wanted = v if kind == "aft" else v[:, None]
    relative = (state[name] - wanted).abs() / wanted.abs().clamp(min=1e-12)
    assert float(relative.max()) <= 10 * (FP32 if dtype == torch.float32 else FP64)


def calls() -> dict[str, Step]:
    """Steps by name, with what is done to their inputs."""
    draw, d = drawn(), 6
    selection = selection_of(draw, d)
    selective, aft = empty_state(B, N, H * d, draw(0), False), aft_state(d, draw(0), False)
    sums, turn = draw(B, H, feature_count(d), d + 1).abs(), (draw(d // 2), draw(d // 2))
    x, v, z = draw(B, D), draw(B, H * d), draw(B, 3 * H * d)
    return {
        "selective_layer_step": lambda change: selective_layer_step(selective, x, change(v), H, selection, None),
        "channel_layer_step": lambda change: channel_layer_step(aft, change(z), H, None),
        "taylor_step": lambda change: taylor_step(sums, change(z), turn),
    }


each_call = pytest.mark.parametrize("name", calls())


@each_call
def test_a_step_takes_no_call_that_is_watched_or_of_other_shapes_or_dtypes(name):
    assert_takes_no_other_call(name, calls()[name])


@each_call
def test_a_broken_value_is_shown_in_its_sequence_and_nowhere_else(name):
    found = calls()[name](broken)
    assert found is not None
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


@each_call
def test_projections_in_any_layout_give_the_same_step(name):
    plain, other = calls()[name](lambda x: x), calls()[name](lambda x: x.t().contiguous().t())
    assert plain is not None
    assert other is not None
    assert torch.equal(plain, other)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("kind", ["selective", "aft", "taylor"])
def test_a_step_is_the_same_on_any_number_of_threads(kind, threads):
    before, found = torch.get_num_threads(), []
    batch, d = 64, 32
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            draw = drawn(torch.float32)
            selection, shape = selection_of(draw, d), (batch, H * d)
            if kind == "selective":
                state = empty_state(batch, 16, H * d, draw(0), False)
                selection = replace(selection, w_states=draw(32, D), a_log=draw(16, H * d))
                y = selective_layer_step(state, draw(batch, D), draw(*shape), H, selection, None)
            elif kind == "aft":
                state = {"n_BE": draw(4096, H * d), "m_BE": draw(4096, H * d)}
                y = channel_layer_step(state, draw(4096, 3 * H * d), H, None)
            else:
                state = {"sums": draw(4, H, feature_count(d), d + 1).abs()}
                y = taylor_step(state["sums"], draw(4, 3 * H * d), (draw(d // 2), draw(d // 2)))
            assert y is not None
            found.append((y, *state.values()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))
