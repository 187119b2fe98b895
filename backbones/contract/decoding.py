"""Checks of decoding: one token at a time gives what `forward` gives, and the state has the stated size."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from backbones.contract.probe import Case, Probe, check, name_of, peak, run
from backbones.mixers.base import Mixer, State

D = 32


def _rounding(probe: Probe, mixer: Mixer, case: Case, y_BTD: Tensor) -> float:
    """Distance of `forward` in fp32 from fp64, relative to max|y|; 0 where the mixer has no fp64.

    This is the conditioning of the layer at these inputs: where a row's norm is small compared with its terms
    (HyperMLP), every order of summation gives other digits, and processors differ in that order.
    """
    if not probe.cls.capabilities.fp64:
        return 0.0
    exact_BTD = run(copy.deepcopy(mixer).double(), case.map(torch.Tensor.double))
    return peak(y_BTD.double() - exact_BTD) / max(peak(exact_BTD), 1e-30)


@check(
    "step",
    "step(), one token at a time, equals forward (fp64: 1e-9 of max|y|; fp32: 2e-5 of max|y| plus 10 times its "
    "rounding)",
)
def decodes(probe: Probe) -> None:
    if not probe.causal:
        probe.not_applicable("not causal")
    for tokens, dtype, allowed in (
        (1, probe.precise, probe.exact),
        (13, probe.precise, probe.exact),
        (64, torch.float32, 2e-5),
        (65, probe.precise, probe.exact),
        (129, torch.float32, 2e-5),
        (301, probe.precise, probe.exact),
    ):
        mixer, case = probe.build(D, tokens, dtype).eval(), probe.case(2, tokens, D, dtype)
        with torch.no_grad():
            y_BTD = run(mixer, case)
            if dtype == torch.float32:
                allowed += 10 * _rounding(probe, mixer, case, y_BTD)
            state = mixer.init_state(case.x_BTD.shape[0], tokens)
            for position in range(tokens):
                x_BD, context = case.token(position)
                probe.at(B=2, T=tokens, D=D, dtype=name_of(dtype), position=position)
                out_BD, state = mixer.step(x_BD, state, context)
                error = peak(out_BD - y_BTD[:, position]) / max(peak(y_BTD), 1e-30)
                probe.require(error <= allowed, "step differs from forward", relative_error=error, allowed=allowed)
        probe.require(state.position == tokens, "the state counts a wrong number of tokens", counted=state.position)


@check(
    "state-size",
    "after T tokens of one sequence the fp32 state has exactly cost().state_bytes, constant in T exactly where "
    "declared",
)
def states_its_size(probe: Probe) -> None:
    sizes: dict[int, int] = {}
    for tokens in (8, 16, 32):
        probe.at(T=tokens, D=D)
        mixer, case = probe.build(D, tokens).eval(), probe.case(1, tokens, D)
        stated = probe.cls.cost(mixer.config, D, tokens).state_bytes
        if not probe.causal:
            probe.require(stated == 0, "a mixer that is not causal states bytes of a decoding state", stated=stated)
            continue
        state: State = mixer.init_state(case.x_BTD.shape[0], tokens)
        with torch.no_grad():
            for position in range(tokens):
                x_BD, context = case.token(position)
                _, state = mixer.step(x_BD, state, context)
        sizes[tokens] = state.bytes()
        probe.require(
            state.bytes() == stated, "the state has another number of bytes", held=state.bytes(), stated=stated
        )
    declared = probe.cls.capabilities.constant_state
    if probe.causal:
        constant = sizes[16] == sizes[32]
        probe.require(
            constant == declared,
            "constant_state is declared incorrectly",
            declared=declared,
            at_16=sizes[16],
            at_32=sizes[32],
        )
