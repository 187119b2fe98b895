"""Every arm of FEM, over every host prior, has the values of the naive reference implementation, and works in bf16."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from backbones.contract.calls import works_in_half_precision
from backbones.contract.costs import counts_flops
from backbones.contract.probe import Probe, peak, run
from backbones.mixers import registry
from tests.backbones.naive import load_naive_references
from tests.backbones.test_fem import HOST_OF, SWITCHES, both_ways
from tests.tolerances import FP64

ARMS = [dict(zip(SWITCHES, on, strict=True)) for on in product([True, False], repeat=len(SWITCHES))]


def named(arm: dict[str, bool]) -> str:
    return "+".join(name for name, on in arm.items() if on) or "none"


def probe(name: str, causal: bool, arm: dict[str, bool]) -> Probe:
    return Probe(registry.get(name), causal, load_naive_references()[name], options=arm)


@pytest.mark.parametrize("name", HOST_OF)
@both_ways
def test_every_arm_has_the_values_of_the_formula(name: str, causal: bool) -> None:
    reference = load_naive_references()[name]
    seen = []
    for arm in ARMS:
        made = probe(name, causal, arm)
        mixer, case = made.build(16, 11, torch.float64), made.case(2, 11, 16, torch.float64)
        for given in (case, case.padded(3, slice(0, 1), torch.neg)):
            with torch.no_grad():
                y_BTD, wanted_BTD = run(mixer, given), reference(mixer, given.x_BTD, given.context)
            real = 1.0 if given.mask_BT is None else given.mask_BT[..., None]
            error = peak((y_BTD - wanted_BTD) * real) / peak(wanted_BTD)
            assert error <= FP64, f"{named(arm)}: off by {error:.2g}"
        seen.append(y_BTD)
    assert len(seen) == 16


@pytest.mark.parametrize("arm", ARMS[1:], ids=named)
def test_every_arm_states_its_flops(arm: dict[str, bool]) -> None:
    counts_flops(probe("fem", True, arm))


@pytest.mark.parametrize("name", ["fem", "fem-linear"])
@pytest.mark.parametrize("off", SWITCHES)
def test_every_switch_works_in_half_precision(name: str, off: str) -> None:
    works_in_half_precision(probe(name, True, {off: False}))
