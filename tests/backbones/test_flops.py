"""Stated FLOPs equal those that PyTorch counts in the naive references, exactly; scans are added by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones.contract.costs import LENGTHS, WIDTHS
from backbones.contract.probe import Probe
from backbones.mixers import registry
from backbones.mixers.base import Mixer
from backbones.mixers.fem.fem import Fem
from backbones.mixers.priors.host_mixer import HostMixer
from tests.backbones.naive import load_naive_references

NAIVE = load_naive_references()
LONG = 1024


def counted(name: str, dim: int, length: int) -> tuple[Mixer, int]:
    """(the mixer, FLOPs of its naive reference on one sequence), on the meta device."""
    cls = registry.get(name)
    probe = Probe(cls, causal=True)
    case = probe.case(1, length, dim)
    if case.constant_row:  # the constant row alone: the cost of one sequence, its weights included
        case = case.map(lambda z: z[-1:])
    case = case.map(lambda z: z.to("meta"))
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        mixer = cls(probe.config(dim, length), dim, length)
        NAIVE[name](mixer, case.x_BTD, case.context)
    return mixer, counter.get_total_flops()


def elementwise(mixer: Mixer, name: str) -> int:
    """FLOPs per token of scans, which PyTorch does not count: two per channel, for FEM's convolution and AFT."""
    scans = 0
    if isinstance(mixer, Fem) and mixer.convolution is not None:
        scans += mixer.convolution.rank
    if name.endswith("aft"):
        assert isinstance(mixer, Fem | HostMixer)
        scans += mixer.widths.values * (3 if isinstance(mixer, Fem) else 2)
    return 2 * scans


def assert_exact(name: str, dim: int, length: int) -> None:
    mixer, flops = counted(name, dim, length)
    stated = mixer.cost(mixer.config, dim, length).flops
    assert length * (stated - elementwise(mixer, name)) == flops, (stated, flops / length, elementwise(mixer, name))


@pytest.mark.parametrize("name", NAIVE)
def test_flops_are_exact_at_a_small_width(name: str) -> None:
    assert_exact(name, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAIVE)
def test_flops_are_exact_at_every_width_and_length(name: str) -> None:
    for dim in WIDTHS:
        for length in LENGTHS:
            if length < LONG or not name.startswith("fem"):  # loops over the tokens of FEM's convolution take long
                assert_exact(name, dim, length)
