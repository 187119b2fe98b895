"""Checks of unusual calls: modules in half precision, batches without rows or tokens, and exported graphs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from backbones.contract.probe import Case, Probe, check, name_of, run
from backbones.mixers.base import Context, Mixer

D = 32
#: How far a module in half precision may be from one in fp32 with the same parameters, as a fraction of the norm; the
#: first for outputs, the second for all gradients together.
HALF = {torch.bfloat16: (0.03, 0.06), torch.float16: (0.005, 0.01)}


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The norm of the difference as a fraction of the norm of what is expected."""
    found, expected = [z.detach() for z in found], [z.detach() for z in expected]
    squares = [
        (float((a.float() - b.float()).square().sum()), float(b.float().square().sum()))
        for a, b in zip(found, expected, strict=True)
    ]
    missed, size = (sum(s[i] for s in squares) for i in (0, 1))
    return float((missed / max(size, 1e-30)) ** 0.5)


def _cast(case: Case, dtype: torch.dtype) -> Case:
    return case.map(lambda z: z.to(dtype))


def _gradients(mixer: Mixer, case: Case) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of its mean square in x and every parameter."""
    x_BTD = case.x_BTD.clone().requires_grad_()
    y_BTD = run(mixer, replace(case, x_BTD=x_BTD))
    leaves = [x_BTD, *(p for p in mixer.parameters() if p.requires_grad)]
    loss = 100.0 * y_BTD.float().square().mean() if y_BTD.numel() else y_BTD.sum()
    return y_BTD, list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


@check(
    "half",
    "a module in bf16 or fp16 returns its input's dtype in forward, backward and step, near the same module in fp32: "
    "3 % of the norm in bf16, 0.5 % in fp16, and twice that for gradients",
)
def works_in_half_precision(probe: Probe) -> None:
    for dtype, (outputs, gradients) in HALF.items():
        for tokens in (1, 7, 65):
            probe.at(B=2, T=tokens, D=D, dtype=name_of(dtype))
            half = probe.build(D, tokens).to(dtype)
            wide, case = copy.deepcopy(half).float(), _cast(probe.case(2, tokens, D), dtype)
            y_BTD, found = _gradients(half, case)
            wide_BTD, expected = _gradients(wide, case.map(Tensor.float))
            probe.require(y_BTD.dtype == dtype, "the output has another dtype", given=name_of(y_BTD.dtype))
            finite = bool(y_BTD.isfinite().all()) and all(bool(g.isfinite().all()) for g in found)
            probe.require(finite, "the output or a gradient is not finite")
            if tokens == 1:
                continue  # not compared: a rectified score that is alone in its row may jump with its sign
            _require_near(probe, "the output", _distance([y_BTD], [wide_BTD]), outputs)
            _require_near(probe, "gradients", _distance(found, expected), gradients)
            if probe.causal and tokens == 7:
                _require_near(probe, "step", _distance([_decoded(probe, half.eval(), case)], [wide_BTD]), outputs)


def _require_near(probe: Probe, what: str, error: float, allowed: float) -> None:
    probe.require(error <= allowed, "half precision differs from fp32", of=what, relative_error=error, allowed=allowed)


@torch.no_grad()
def _decoded(probe: Probe, mixer: Mixer, case: Case) -> Tensor:
    """The outputs of `step`, `[B, T, D]`."""
    state, outs = mixer.init_state(case.x_BTD.shape[0], case.x_BTD.shape[1]), []
    for position in range(case.x_BTD.shape[1]):
        x_BD, context = case.token(position)
        out_BD, state = mixer.step(x_BD, state, context)
        probe.require(out_BD.dtype == x_BD.dtype, "step returns another dtype", given=name_of(out_BD.dtype))
        outs.append(out_BD)
    return torch.stack(outs, dim=1)


@check("empty", "without rows (B = 0) or tokens (T = 0) the output has the empty shape, and all gradients are zero")
def accepts_empty_batches(probe: Probe) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        mixer, case = probe.build(D, 16).to(dtype), _cast(probe.case(2, 7, D), dtype)
        for label, empty in (("B", case.map(lambda z: z[:0])), ("T", case.map(lambda z: z[:, :0]))):
            for masked in (False, True):
                probe.at(**{"B": 2, "T": 7, label: 0}, D=D, dtype=name_of(dtype), mask=masked)
                mask_BT = torch.ones(empty.x_BTD.shape[:2], dtype=torch.bool) if masked else None
                y_BTD, gradients = _gradients(mixer, replace(empty, mask_BT=mask_BT))
                shape, given = tuple(empty.x_BTD.shape), tuple(y_BTD.shape)
                probe.require(given == shape, "the output has another shape", given=str(given), expected=str(shape))
                probe.require(y_BTD.dtype == dtype, "the output has another dtype", given=name_of(y_BTD.dtype))
                probe.require(not any(bool(g.any()) for g in gradients), "a gradient is not zero")
        if probe.causal:
            probe.at(B=0, T=1, D=D, dtype=name_of(dtype))
            x_BD, context = case.map(lambda z: z[:0]).token(0)
            out_BD, _ = mixer.step(x_BD, mixer.init_state(0, 16), context)
            probe.require(out_BD.shape == x_BD.shape, "step returns another shape", given=str(tuple(out_BD.shape)))


class _Exported(nn.Module):
    """The mixer as a function of tensors alone."""

    def __init__(self, mixer: Mixer, constant_row: bool) -> None:
        super().__init__()
        self.mixer, self.constant_row = mixer, constant_row

    def forward(self, x_BTD: Tensor, embedding_BTD: Tensor | None) -> Tensor:
        out: Tensor = self.mixer(x_BTD, Context(embedding_BTD=embedding_BTD, constant_row=self.constant_row))
        return out


@check(
    "export",
    "torch.export gives a graph with the same outputs and gradients for another input (fp64, 1e-9 of the largest)",
    slow=True,
)
def exports(probe: Probe) -> None:
    dtype = probe.precise
    probe.at(B=2, T=13, D=D, dtype=name_of(dtype))
    mixer, case, other = probe.build(D, 16, dtype), probe.case(2, 13, D, dtype), probe.case(2, 13, D, dtype, seed=2)
    module = _Exported(mixer, case.constant_row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's own tracing
        graph = torch.export.export(module, (case.x_BTD, case.embedding_BTD)).module()
    results = []
    for function in (graph, module):
        x_BTD = other.x_BTD.clone().requires_grad_()
        y_BTD = function(x_BTD, other.embedding_BTD)
        results.append([y_BTD.detach(), *torch.autograd.grad(y_BTD.square().mean(), x_BTD)])
    for name, found, expected in zip(("the output", "the gradient of x"), *results, strict=True):
        error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
        allowed = probe.exact
        probe.require(error <= allowed, "the exported graph differs", of=name, relative_error=error, allowed=allowed)
