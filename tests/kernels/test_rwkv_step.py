"""The compiled step of RWKV-7 equals PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels.decoding.rwkv import Parameters, Projections, compiled_rwkv_step
from kernels.tools import steps_in_pytorch as reference
from tests.kernels.layer_steps import Change, allowed, assert_takes_no_other_call, broken, drawn, error

B, H, STEPS = 2, 3, 20
pytestmark = pytest.mark.usefixtures("compiled_kernels")
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
#: Key and value channels per head: one, parts of vectors, whole ones, and one side wider than the other.
widths = pytest.mark.parametrize(("k", "w"), [(1, 1), (5, 7), (16, 16), (32, 6), (3, 40)])
Draw = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def token(draw: Draw, k: int, w: int, batch: int = B) -> Projections:
    return Projections(*(draw(batch, H * width) for width in (k, k, w, k, k, w)))


def layer(draw: Draw, k: int, w: int) -> Parameters:
    return Parameters(0.6, 1e-12, 1e-5, *(draw(H * width) for width in (k, k, k, k, k, w, w)))


def wide(given: Projections) -> Projections:
    return Projections(*(x.double() for x in given.tensors()))


def wide_layer(given: Parameters) -> Parameters:
    floats = given.largest_decay, given.unit_eps, given.norm_eps
    return Parameters(*floats, *(x.double() for x in given.tensors()))


@dtypes
@widths
def test_steps_equal_pytorchs_in_fp64(k: int, w: int, dtype: torch.dtype) -> None:
    draw = drawn(dtype)
    memory, of_layer = torch.zeros(B, H, k, w, dtype=dtype), layer(draw, k, w)
    expected = memory.double().clone()
    for _ in range(STEPS):
        given = token(draw, k, w)
        y = compiled_rwkv_step(memory, given, of_layer)
        wanted, expected = reference.rwkv(expected, wide(given), wide_layer(of_layer))
        assert error(y, wanted) <= allowed(dtype)
        assert error(memory, expected) <= allowed(dtype)


def test_a_key_of_zeros_removes_nothing() -> None:
    draw, k, w = drawn(), 5, 7
    memory, of_layer = draw(B, H, k, w), layer(draw, k, w)
    given = replace(token(draw, k, w), k=torch.zeros(B, H * k, dtype=torch.float64))
    wanted, expected = reference.rwkv(memory.clone(), given, of_layer)
    assert error(compiled_rwkv_step(memory, given, of_layer), wanted) <= allowed(torch.float64)
    assert torch.allclose(memory, expected, rtol=1e-12)


def call(change: Change) -> Tensor | None:
    draw, k, w = drawn(), 5, 7
    memory, given = draw(B, H, k, w), token(draw, k, w)
    return compiled_rwkv_step(memory, replace(given, v=change(given.v)), layer(draw, k, w))


def test_a_step_takes_no_call_that_is_watched_or_of_other_shapes_or_dtypes() -> None:
    assert_takes_no_other_call("rwkv_step", call)


@pytest.mark.parametrize("name", ["w_start", "r_k", "gain", "bias"])
def test_parameters_of_another_width_are_not_taken(name: str) -> None:
    draw, k, w = drawn(), 5, 7
    of_layer = layer(draw, k, w)
    shorter = replace(of_layer, **{name: getattr(of_layer, name)[:-1]})
    assert compiled_rwkv_step(draw(B, H, k, w), token(draw, k, w), shorter) is None


def test_a_broken_value_is_shown_in_its_sequence_and_nowhere_else() -> None:
    found = call(broken)
    assert found is not None
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


def test_projections_in_any_layout_give_the_same_step() -> None:
    plain, other = call(lambda x: x), call(lambda x: x.t().contiguous().t())
    assert plain is not None
    assert other is not None
    assert torch.equal(plain, other)


@pytest.mark.parametrize("threads", [2, 3])
def test_a_step_is_the_same_on_any_number_of_threads(threads: int) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            draw = drawn(torch.float32)
            memory = draw(64, H, 32, 32)
            y = compiled_rwkv_step(memory, token(draw, 32, 32, 64), layer(draw, 32, 32))
            assert y is not None
            found.append((y, memory))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))
