"""Checks of the stated costs: parameters, FLOPs, agreement with the naive reference, and the size for a budget."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones.contract.probe import NaiveForward, Probe, check, peak, run
from backbones.mixers.base import Mixer, MixerConfig
from backbones.mixers.errors import MixerError
from backbones.mixers.stored import stored_numbers

WIDTHS = (64, 128, 192, 384, 768)
LENGTHS = (64, 196, 1024)
FLOPS_TOLERANCE = 0.02


@check(
    "parameters",
    "cost().parameters equals what the module keeps, at D of 64, 128, 192, 384, 768 and T of 64, 196, 1024: trainable "
    "and frozen parameters, and persistent buffers",
)
def counts_parameters(probe: Probe) -> None:
    for dim in WIDTHS:
        for length in LENGTHS:
            probe.at(D=dim, T=length)
            config = probe.config(dim, length)
            with torch.device("meta"):
                mixer = probe.cls(config, dim, length)
            kept, stated = stored_numbers(mixer), probe.cls.cost(config, dim, length).parameters
            trained = {name for name, parameter in mixer.named_parameters() if parameter.requires_grad}
            others = {"not_trained": ", ".join(sorted(kept.keys() - trained))} if kept.keys() - trained else {}
            counted = sum(kept.values())
            probe.require(
                counted == stated, "the formula differs from the count", counted=counted, stated=stated, **others
            )


@check(
    "flops",
    "cost().flops, per token, is within 2 % of what PyTorch counts in the naive reference implementation",
)
def counts_flops(probe: Probe) -> None:
    naive = _naive(probe)
    for dim, length in ((128, 32), (64, 64)):
        probe.at(B=1, D=dim, T=length)
        mixer, case = probe.build(dim, length), probe.case(1, length, dim)
        if case.constant_row:  # the constant row alone: the cost of one sequence, its weights included
            case = case.map(lambda z: z[-1:])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            naive(mixer, case.x_BTD, case.context)
        counted, stated = counter.get_total_flops() / length, probe.cls.cost(mixer.config, dim, length).flops
        close = abs(stated - counted) <= FLOPS_TOLERANCE * counted
        probe.require(close, "the formula is more than 2 % off the count", counted=round(counted), stated=stated)


@check("naive", "forward equals the naive reference implementation (fp64, 1e-9 of max|y|), with and without padding")
def equals_naive_reference(probe: Probe) -> None:
    naive = _naive(probe)
    for tokens in (1, 2, 13, 65):
        mixer, case = probe.build(32, 70, torch.float64), probe.case(2, tokens, 32, torch.float64)
        for label, given in (("none", case), ("5 tokens", case.padded(5, slice(0, 1), torch.neg))):
            probe.at(B=2, T=tokens, D=32, dtype="float64", padding=label)
            with torch.no_grad():
                y_BTD, naive_BTD = run(mixer, given), naive(mixer, given.x_BTD, given.context)
            if given.mask_BT is not None:  # outputs at masked positions are unspecified
                real = given.mask_BT[..., None]
                y_BTD, naive_BTD = y_BTD * real, naive_BTD * real
            error = peak(y_BTD - naive_BTD) / max(peak(naive_BTD), 1e-30)
            probe.require(
                error <= 1e-9, "forward differs from the naive reference implementation", relative_error=error
            )


def _naive(probe: Probe) -> NaiveForward:
    if probe.naive is None:
        probe.not_applicable(
            "no naive reference implementation: define plain_forward(x_BTD, context) on the mixer, from matrix products"
        )
    return probe.naive


def _differences(one: dict[str, Any], other: dict[str, Any]) -> int:
    return sum(one[name] != other[name] for name in one)


@check("nearest", "size() returns a candidate, and no candidate that differs in one width is nearer to the budget")
def sizes_to_the_nearest(probe: Probe) -> None:
    for dim, length in ((64, 64), (128, 64), (128, 256), (192, 196)):
        for budget in (3 * dim * dim, 4 * dim * dim, 5 * dim * dim):
            probe.at(D=dim, T=length, budget=budget)
            wanted = probe.cls.Config(causal=probe.causal)
            try:
                chosen = probe.cls.size(wanted, dim, length, budget)
            except MixerError:
                continue  # a mixer may refuse a budget
            _require_nearest(probe, chosen, list(probe.cls.candidates(wanted, dim, length)), dim, length, budget)
            probe.at(D=dim, T=length, budget=budget)
            kept = probe.cls.size(chosen, dim, length, budget + dim * dim)
            probe.require(kept == chosen, "given widths are solved again", given=str(chosen), changed=str(kept))


def _require_nearest(probe: Probe, chosen: MixerConfig, others: list[Any], dim: int, length: int, budget: int) -> None:
    probe.require(chosen in others, "size() returns a config that is not a candidate", chosen=str(chosen))
    missed = abs(probe.cls.cost(chosen, dim, length).parameters - budget)
    default_size = probe.cls.size.__func__ is Mixer.size.__func__  # type: ignore[attr-defined]
    for other in others:
        if default_size or _differences(chosen.model_dump(), other.model_dump()) == 1:
            miss = abs(probe.cls.cost(other, dim, length).parameters - budget)
            probe.require(
                miss >= missed,
                "another candidate is nearer",
                chosen=str(chosen),
                nearer=str(other),
                off=missed,
                nearer_off=miss,
            )
