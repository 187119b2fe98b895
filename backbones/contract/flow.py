"""Checks of what flows where: the past only, the whole sequence, no padding, no other rows; and decoding."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from backbones.contract.probe import Case, Probe, check, name_of, peak, run
from backbones.mixers.base import Mixer, State

D = 32
PREFIX_TOLERANCE = 1e-6  # of max |y|, in fp32


def _futures(case: Case, seen: int) -> dict[str, Case]:
    """The same first `seen` tokens before another future."""

    def after(change: Callable[[Tensor], Tensor]) -> Case:
        return case.map(lambda z: torch.cat([z[:, :seen], change(z[:, seen:])], 1))

    return {
        "changed": after(lambda z: z.flip(2) - 1.5),
        "scaled by 1e4": after(lambda z: z * 1e4),
        "removed": case.map(lambda z: z[:, :seen]),
    }


@check(
    "prefix",
    "what comes after a position changes nothing up to it: max|Δ| ≤ 1e-6 max|y|, whether changed, scaled by "
    "1e4 or removed",
)
def sees_no_future(probe: Probe) -> None:
    if not probe.causal:
        probe.not_applicable("not causal")
    mixer = probe.build(D, 64)
    for tokens in (2, 7, 13, 64):
        case = probe.case(2, tokens, D)
        with torch.no_grad():
            y_BTD = run(mixer, case)
            for seen in sorted({1, tokens // 2, tokens - 1}):
                for future, other in _futures(case, seen).items():
                    probe.at(B=2, T=tokens, D=D, seen=seen, future=future)
                    allowed = PREFIX_TOLERANCE * peak(y_BTD[:, :seen])
                    change = peak(run(mixer, other)[:, :seen] - y_BTD[:, :seen])
                    probe.require(change <= allowed, "outputs depend on later tokens", change=change, allowed=allowed)


@check("reach", "not causal: every output depends on every input, the first output on the last token too")
def sees_everything(probe: Probe) -> None:
    if probe.causal:
        probe.not_applicable("causal")
    if not probe.cls.capabilities.mixes_tokens:
        probe.not_applicable("declares that it mixes no tokens")
    for tokens in (2, 7, 13):
        mixer, case = probe.build(D, 16, probe.precise), probe.case(4, tokens, D, probe.precise)
        with torch.no_grad():
            y_BTD = run(mixer, case)
            for source in range(tokens):
                bump = torch.zeros(tokens, 1, dtype=probe.precise)
                bump[source] = 1.0
                other_BTD = run(mixer, case.map(lambda z, bump=bump: z + bump * z.flip(2)))  # type: ignore[misc]
                moved_T = (other_BTD - y_BTD)[: case.rows].abs().amax((0, 2))
                for target in range(tokens):
                    probe.at(
                        B=4, T=tokens, D=D, dtype=name_of(probe.precise), input_position=source, output_position=target
                    )
                    probe.require(float(moved_T[target]) > 1e-12 * peak(y_BTD), "the output ignores that input")


@check("no-mixing", "a mixer that declares it mixes no tokens does not: an output depends on its own position only")
def mixes_nothing(probe: Probe) -> None:
    if probe.cls.capabilities.mixes_tokens:
        probe.not_applicable("mixes tokens")
    probe.at(B=2, T=7, D=D, dtype=name_of(probe.precise))
    mixer, case = probe.build(D, 16, probe.precise), probe.case(2, 7, D, probe.precise)
    with torch.no_grad():
        whole, alone = run(mixer, case)[:, 3:4], run(mixer, case.map(lambda z: z[:, 3:4]))
    probe.require(peak(whole - alone) <= probe.exact * peak(whole), "the output depends on other positions")


@check("rows", "a row of the batch depends on no other row, but for the constant row where one is declared")
def keeps_rows_apart(probe: Probe) -> None:
    probe.at(B=3, T=7, D=D, dtype=name_of(probe.precise))
    mixer, case = probe.build(D, 16, probe.precise), probe.case(3, 7, D, probe.precise)
    keep_B = torch.zeros(case.x_BTD.shape[0], 1, 1, dtype=torch.bool)
    keep_B[0], keep_B[case.rows :] = True, True
    with torch.no_grad():
        y_BTD, other_BTD = run(mixer, case), run(mixer, case.map(lambda z: torch.where(keep_B, z, 2 * z.flip(2))))
    change = peak(other_BTD[0] - y_BTD[0])
    probe.require(change <= probe.exact * peak(y_BTD[0]), "the first row changes with the others", change=change)


@check(
    "padding",
    "masked tokens on the left carry no weight: real positions give what they give without them, and nothing "
    "is ever NaN",
)
def ignores_padding(probe: Probe) -> None:
    for tokens, pad in ((1, 1), (2, 1), (7, 5), (13, 3)):
        mixer, case = probe.build(D, 32, probe.precise), probe.case(2, tokens, D, probe.precise)
        with torch.no_grad():
            y_BTD = run(mixer, case)[: case.rows]
            for label, fill in (("like the rest", torch.neg), ("of size 1e3", lambda z: 1e3 * z)):
                probe.at(B=2, T=tokens, padding=pad, D=D, dtype=name_of(probe.precise), padding_values=label)
                padded = case.padded(pad, slice(0, case.rows), fill)
                other_BTD = run(mixer, padded)[: case.rows]
                probe.require(bool(other_BTD.isfinite().all()), "an output is not finite")
                change, allowed = peak(other_BTD[:, pad:] - y_BTD), probe.exact * peak(y_BTD)
                probe.require(change <= allowed, "padding changes the outputs", change=change, allowed=allowed)


@check("all-masked", "a row without a single real token gives finite values and finite gradients")
def survives_empty_rows(probe: Probe) -> None:
    probe.at(B=2, T=7, D=D)
    mixer, case = probe.build(D, 16), probe.case(2, 7, D)
    mask_BT = torch.ones(case.x_BTD.shape[:2], dtype=torch.bool)
    mask_BT[0] = False
    x_BTD = case.x_BTD.clone().requires_grad_()
    y_BTD = run(mixer, Case(x_BTD, case.embedding_BTD, mask_BT, case.constant_row))
    probe.require(bool(y_BTD.isfinite().all()), "an output is not finite")
    gradients = torch.autograd.grad(
        y_BTD.square().mean(), [x_BTD, *mixer.parameters()], allow_unused=True, materialize_grads=True
    )
    for name, gradient in zip(["x", *(n for n, _ in mixer.named_parameters())], gradients, strict=True):
        probe.require(bool(gradient.isfinite().all()), "a gradient is not finite", of=name)


def _rounding(probe: Probe, mixer: Mixer, case: Case, y_BTD: Tensor) -> float:
    """How far `forward` in fp32 is from itself in fp64, of max|y|; 0 where the mixer has no fp64.

    This is the conditioning of the layer at these inputs: where a row's norm is small beside its terms (HyperMLP),
    every order of summation gives other digits, and processors differ in that order.
    """
    if not probe.cls.capabilities.fp64:
        return 0.0
    exact_BTD = run(copy.deepcopy(mixer).double(), case.map(torch.Tensor.double))
    return peak(y_BTD.double() - exact_BTD) / max(peak(exact_BTD), 1e-30)


@check(
    "step",
    "step(), one token at a time, gives what forward gives (fp64 to 1e-9; fp32 to 2e-5 of max|y| and 10 times "
    "its rounding)",
)
def decodes(probe: Probe) -> None:
    if not probe.causal:
        probe.not_applicable("not causal")
    for tokens, dtype, allowed in (
        (1, probe.precise, probe.exact),
        (13, probe.precise, probe.exact),
        (64, torch.float32, 2e-5),
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
        probe.require(state.position == tokens, "the state counts other tokens than it saw", counted=state.position)


@check(
    "state-size",
    "after T tokens of one sequence the fp32 state holds exactly cost().state_bytes, constant in T exactly "
    "where declared",
)
def tells_state_size(probe: Probe) -> None:
    sizes: dict[int, int] = {}
    for tokens in (8, 16, 32):
        probe.at(T=tokens, D=D)
        mixer, case = probe.build(D, tokens).eval(), probe.case(1, tokens, D)
        stated = probe.cls.cost(mixer.config, D, tokens).state_bytes
        if not probe.causal:
            probe.require(stated == 0, "a mixer that is not causal declares a decoding state", stated=stated)
            continue
        state: State = mixer.init_state(case.x_BTD.shape[0], tokens)
        with torch.no_grad():
            for position in range(tokens):
                x_BD, context = case.token(position)
                _, state = mixer.step(x_BD, state, context)
        sizes[tokens] = state.bytes()
        probe.require(
            state.bytes() == stated, "the state holds another number of bytes", held=state.bytes(), stated=stated
        )
    declared = probe.cls.capabilities.constant_state
    if probe.causal:
        constant = sizes[16] == sizes[32]
        probe.require(
            constant == declared,
            "constant_state is declared wrongly",
            declared=declared,
            at_16=sizes[16],
            at_32=sizes[32],
        )
