"""Every built-in mixer with a constant state, at the edges of its chunks and ranges, against a loop over the tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from backbones.contract.probe import Case, Probe, peak, run
from backbones.mixers import registry
from backbones.mixers.base import Mixer
from tests.backbones.naive import load_naive_references
from tests.tolerances import FP64

D = 32
BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
RECURRENT = [
    name
    for name in BUILT_IN
    if registry.get(name).capabilities.constant_state and registry.get(name).capabilities.mixes_tokens
]
CORRECTING = [name for name in RECURRENT if "negative" in registry.get(name).Config.model_fields]
#: Parameters by the last part of their name, and a value that makes every decay at most e^{−1000}: rates are
#: exponentials, and gates are the 16th root of a sigmoid.
DECAYS = {"a_log": 14.0, "b_decay": -16_000.0, "bias": -16_000.0}
#: Without decays that could be as strong: none at all, fixed ones, or mLSTM's, whose gates are capped at 15.
NO_STRONG_DECAYS = {"linear", "retention", "aft", "taylor", "query-free", "mlstm", "deltanet", "retnet"}

both_ways = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
every_recurrent = pytest.mark.parametrize("name", RECURRENT)


def made(name: str, causal: bool, tokens: int, **options: Any) -> tuple[Mixer, Case]:
    """A mixer in fp64 whose parameters are all moved from their initial values, and an input."""
    probe = Probe(registry.get(name), causal, options=options)
    return probe.build(D, tokens, torch.float64), probe.case(2, tokens, D, torch.float64)


def assert_equals_the_loop(name: str, mixer: Mixer, case: Case) -> None:
    with torch.no_grad():
        found, wanted = run(mixer, case), load_naive_references()[name](mixer, case.x_BTD, case.context)
    assert peak(found - wanted) <= FP64 * peak(wanted)


def is_convolutions(name: str, key: str) -> bool:
    """Mamba-2's `bias` is that of its convolution."""
    return name == "mamba2" and key == "bias"


def set_to_strong(name: str, mixer: Mixer) -> bool:
    """Whether the mixer has decays that can be made as small as e^{−1000}; they are."""
    found = False
    with torch.no_grad():
        for key, parameter in mixer.named_parameters():
            last = key.rpartition(".")[2]
            if last in DECAYS and not is_convolutions(name, key):
                parameter.fill_(DECAYS[last])
                found = True
    return found


@every_recurrent
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 129, pytest.param(257, marks=pytest.mark.slow)])
@both_ways
def test_chunks_are_the_loop_around_their_borders(name: str, causal: bool, tokens: int) -> None:
    assert_equals_the_loop(name, *made(name, causal, tokens))


@every_recurrent
@both_ways
def test_decays_far_below_the_smallest_number_are_the_loop_too(name: str, causal: bool) -> None:
    mixer, case = made(name, causal, 70)
    if not set_to_strong(name, mixer):
        assert name.removeprefix("fem-") in NO_STRONG_DECAYS
        pytest.skip("it has no decay that could be as strong")
    assert_equals_the_loop(name, mixer, case)
    x_BTD = case.x_BTD.clone().requires_grad_()
    leaves = [x_BTD, *mixer.parameters()]
    y_BTD = run(mixer, replace(case, x_BTD=x_BTD))
    gradients = torch.autograd.grad(y_BTD.square().sum(), leaves, allow_unused=True, materialize_grads=True)
    assert all(bool(g.isfinite().all()) for g in gradients)


@every_recurrent
@both_ways
def test_equal_tokens_are_the_loop_too(name: str, causal: bool) -> None:
    """All keys are equal: what is stored under them interferes as much as it can."""
    mixer, case = made(name, causal, 129)
    assert_equals_the_loop(name, mixer, case.map(lambda z: z[:, :1].expand_as(z).contiguous()))


@pytest.mark.parametrize("name", CORRECTING)
@both_ways
def test_corrections_of_nearly_twice_the_error_are_the_loop_too(name: str, causal: bool) -> None:
    """β = 1.99 at every token, under equal keys: each correction turns the sign of the error before."""
    mixer, case = made(name, causal, 129, negative=True)
    keys, values, heads = int(mixer.keys), int(mixer.values), mixer.config.heads  # type: ignore[arg-type]
    with torch.no_grad():
        rates = mixer.in_proj.weight[2 * keys + values :][:heads]  # type: ignore[union-attr, index]
        rates.zero_()[:, -1] = math.log(1.99 / 0.01)
    x_BTD = case.x_BTD[:, :1].expand_as(case.x_BTD).contiguous()
    x_BTD[..., -1] = 1.0
    assert_equals_the_loop(name, mixer, replace(case, x_BTD=x_BTD))


@every_recurrent
@pytest.mark.parametrize("pad", [1, 64, 70])
@both_ways
def test_padding_over_whole_chunks_leaves_the_state_at_zero(name: str, causal: bool, pad: int) -> None:
    mixer, case = made(name, causal, 13)
    padded = case.padded(pad, slice(0, case.rows), lambda z: 1e3 * z)
    with torch.no_grad():
        alone, after = run(mixer, case)[: case.rows], run(mixer, padded)[: case.rows, pad:]
    assert peak(after - alone) <= FP64 * peak(alone)


def test_the_recurrent_mixers_are_those_that_the_registry_declares() -> None:
    assert {"linear", "gla", "ssm", "aft", "fem-gla", "mamba2", "mlstm", "retnet", "query-free"} <= set(RECURRENT)
    assert CORRECTING == ["deltanet", "gated-deltanet", "kda"]
