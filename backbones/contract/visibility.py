"""Checks of what an output depends on: no future tokens, all tokens, no padding, no other rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from backbones.contract.probe import Case, Probe, check, name_of, peak, run

D = 32
#: Tokens of the usual blocks of kernels, at whose borders leaks are found.
BLOCK = 64
PREFIX_LENGTHS = (2, 7, 13, BLOCK, BLOCK + 1, 2 * BLOCK + 1, 301)
PREFIX_TOLERANCE = 1e-6  # of max |y|, in fp32


def _futures(case: Case, seen: int) -> dict[str, Case]:
    """The same first `seen` tokens, followed by other ones or none."""

    def after(change: Callable[[Tensor], Tensor]) -> Case:
        return case.map(lambda z: torch.cat([z[:, :seen], change(z[:, seen:])], 1))

    return {
        "changed": after(lambda z: z.flip(2) - 1.5),
        "scaled by 1e4": after(lambda z: z * 1e4),
        "removed": case.map(lambda z: z[:, :seen]),
    }


@check(
    "prefix",
    "later tokens, changed, scaled by 1e4 or removed, do not change an output: max|Δ| ≤ 1e-6 max|y|",
)
def sees_no_future(probe: Probe) -> None:
    if not probe.causal:
        probe.not_applicable("not causal")
    for tokens in PREFIX_LENGTHS:
        mixer, case = probe.build(D, max(tokens, BLOCK)), probe.case(2, tokens, D)
        with torch.no_grad():
            y_BTD = run(mixer, case)
            for seen in sorted(
                {1, tokens // 2, tokens - 1, *range(BLOCK - 1, tokens, BLOCK), *range(BLOCK, tokens, BLOCK)}
            ):
                for future, other in _futures(case, seen).items():
                    probe.at(B=2, T=tokens, D=D, seen=seen, future=future)
                    allowed = PREFIX_TOLERANCE * peak(y_BTD[:, :seen])
                    change = peak(run(mixer, other)[:, :seen] - y_BTD[:, :seen])
                    probe.require(change <= allowed, "outputs depend on later tokens", change=change, allowed=allowed)


@check("reach", "without causality every output depends on every input, the first output also on the last token")
def sees_everything(probe: Probe) -> None:
    if probe.causal:
        probe.not_applicable("causal")
    if not probe.cls.capabilities.mixes_tokens:
        probe.not_applicable("declares mixes_tokens=False")
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


@check("no-mixing", "a mixer that declares mixes_tokens=False mixes none: an output depends on its own position only")
def mixes_nothing(probe: Probe) -> None:
    if probe.cls.capabilities.mixes_tokens:
        probe.not_applicable("mixes tokens")
    probe.at(B=2, T=7, D=D, dtype=name_of(probe.precise))
    mixer, case = probe.build(D, 16, probe.precise), probe.case(2, 7, D, probe.precise)
    with torch.no_grad():
        whole, alone = run(mixer, case)[:, 3:4], run(mixer, case.map(lambda z: z[:, 3:4]))
    probe.require(peak(whole - alone) <= probe.exact * peak(whole), "the output depends on other positions")


@check("rows", "a row of the batch does not depend on the other rows, except on the constant row where one is declared")
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
    "masked tokens on the left have no weight: outputs at real positions are those without padding, and all outputs "
    "are finite",
)
def ignores_padding(probe: Probe) -> None:
    for tokens, pad in ((1, 1), (2, 1), (7, 5), (13, 3)):
        mixer, case = probe.build(D, 32, probe.precise), probe.case(2, tokens, D, probe.precise)
        with torch.no_grad():
            y_BTD = run(mixer, case)[: case.rows]
            for label, fill in (("of the usual size", torch.neg), ("of size 1e3", lambda z: 1e3 * z)):
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
