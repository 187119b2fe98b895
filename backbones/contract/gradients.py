"""Checks of gradients, and of compilation."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.func import functional_call

from backbones.contract.probe import Case, NaiveForward, Probe, check, name_of, peak, run
from backbones.mixers.base import Context, Mixer
from kernels.cpu.call import pytorch_only

D = 32
T = 8
ENTRIES = 12  # of each gradient, compared with central differences


@check(
    "live-parameters",
    "every parameter has a finite gradient that is not all zero, with N(0, .02²) added to all parameters",
)
def no_dead_parameters(probe: Probe) -> None:
    probe.at(B=2, T=T, D=D, dtype=name_of(probe.precise))
    mixer, case = probe.build(D, T, probe.precise), probe.case(2, T, D, probe.precise)
    y_BTD = run(mixer, case)
    draw = torch.Generator("cpu").manual_seed(2)
    weight_BTD = torch.randn(y_BTD.shape, generator=draw, dtype=torch.float64, device="cpu").to(y_BTD)
    named = {n: p for n, p in mixer.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(
        (y_BTD * weight_BTD).sum(), list(named.values()), allow_unused=True, materialize_grads=True
    )
    # the gradient of a parameter that cancels (a bias on every logit, say) is rounding, not exactly zero
    largest = max(peak(g) for g in gradients)
    for name, gradient in zip(named, gradients, strict=True):
        probe.require(bool(gradient.isfinite().all()), "a gradient is not finite", parameter=name)
        probe.require(peak(gradient) > 1e-12 * largest, "a parameter has no gradient: it has no effect", parameter=name)


def _as_function(mixer: Mixer, context: Context) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The mixer as a function of its input and its parameters, and copies of the parameters."""
    names = [n for n, _ in mixer.named_parameters()]

    def function(x_BTD: Tensor, *parameters: Tensor) -> Tensor:
        out: Tensor = functional_call(mixer, dict(zip(names, parameters, strict=True)), (x_BTD, context))
        return out

    return function, [p.detach().clone().requires_grad_() for p in mixer.parameters()]


@check(
    "gradcheck",
    "gradients equal central differences entry by entry, and those of the naive reference implementation, where there "
    "is one, at 40 tokens (fp64, the input and every parameter)",
)
def gradients_are_right(probe: Probe) -> None:
    dim = D // 2
    for tokens in (1, 7):
        probe.at(B=2, T=tokens, D=dim, dtype="float64")
        mixer, case = probe.build(dim, 16, torch.float64), probe.case(2, tokens, dim, torch.float64)
        function, parameters = _as_function(mixer, case.context)
        _compare_with_differences(probe, mixer, function, [case.x_BTD.clone().requires_grad_(), *parameters])
    if probe.naive is not None:
        _compare_with_naive(probe, probe.naive)


def _compare_with_differences(
    probe: Probe, mixer: Mixer, function: Callable[..., Tensor], leaves: list[Tensor]
) -> None:
    """Some entries of each gradient, drawn at random. A single random direction would hide an error in one of them."""
    draw = torch.Generator("cpu").manual_seed(3)
    out = function(*leaves)
    weight = torch.randn(out.shape, generator=draw, dtype=torch.float64).to(out)
    gradients = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True, materialize_grads=True)
    plain = [leaf.detach().clone() for leaf in leaves]
    for name, leaf, gradient in zip(_names(mixer), plain, gradients, strict=True):
        entries, flat = leaf.view(-1), gradient.reshape(-1)
        for i in torch.randperm(len(entries), generator=draw)[:ENTRIES].tolist():
            numerical = _difference(lambda: float((function(*plain) * weight).sum()), entries, i)
            error, allowed = abs(float(flat[i]) - numerical), 1e-6 + 1e-5 * peak(gradient)
            probe.require(error <= allowed, "a gradient is wrong", of=name, entry=i, error=error, allowed=allowed)


def _difference(value: Callable[[], float], entries: Tensor, i: int, step: float = 1e-5) -> float:
    """The central difference of a value with respect to one entry, which is put back."""
    middle = float(entries[i])
    with torch.no_grad():
        entries[i] = middle + step
        above = value()
        entries[i] = middle - step
        below = value()
        entries[i] = middle
    return (above - below) / (2 * step)


def _compare_with_naive(probe: Probe, naive: NaiveForward) -> None:
    """Every entry of every gradient."""
    probe.at(B=2, T=40, D=D, dtype="float64")
    mixer, case = probe.build(D, 40, torch.float64), probe.case(2, 40, D, torch.float64)
    leaves = [case.x_BTD.requires_grad_(), *mixer.parameters()]
    outs = run(mixer, case), naive(mixer, case.x_BTD, case.context)
    weight = torch.linspace(-1, 1, outs[0].numel()).to(outs[0]).view_as(outs[0])
    fast, slow = (
        torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True, materialize_grads=True) for out in outs
    )
    for name, one, other in zip(_names(mixer), fast, slow, strict=True):
        error, allowed = peak(one - other), 1e-8 * max(peak(other), 1e-3)
        probe.require(
            error <= allowed, "a gradient differs from the naive reference's", of=name, error=error, allowed=allowed
        )


def _names(mixer: Mixer) -> list[str]:
    return ["x", *(name for name, _ in mixer.named_parameters())]


@check("gradcheck-full", "the same for every entry of the input's gradient, with and without padding", slow=True)
def every_entry_is_right(probe: Probe) -> None:
    dim = D // 2
    case = probe.case(1, 5, dim, torch.float64)
    for label, given in (("none", case), ("2 tokens", case.padded(2, slice(0, case.rows), torch.neg))):
        probe.at(B=1, T=5, D=dim, dtype="float64", padding=label)
        mixer = probe.build(dim, 8, torch.float64)
        real: Tensor | float = 1.0 if given.mask_BT is None else given.mask_BT[..., None]

        def function(x_BTD: Tensor, given: Case = given, mixer: Mixer = mixer, real: Tensor | float = real) -> Tensor:
            return run(mixer, Case(x_BTD, given.embedding_BTD, given.mask_BT, given.constant_row)) * real

        try:
            gradcheck(function, (given.x_BTD.clone().requires_grad_(),), atol=1e-6, rtol=1e-4)
        except GradcheckError as error:
            probe.fail(str(error).strip().splitlines()[0])


@check("compile", "torch.compile changes neither the result nor the gradients (fp32, 1e-5 of the largest)", slow=True)
def compiles(probe: Probe) -> None:
    compare_compiled(probe, "aot_eager")


def compare_compiled(probe: Probe, backend: str) -> None:
    """Compares compiled with eager. "aot_eager" traces forward and backward and generates no code: it takes seconds.

    In fp64 to 1e-9: a compiler that changes the mathematics is noticed there. In fp32 to 1e-5 beyond the distance of
    eager code from fp64: compiled code rounds in another order, and may be as far from the exact result as eager code.
    Eager code is PyTorch's own operations, which are what torch.compile traces: C++ kernels round differently.
    """
    probe.at(B=2, T=16, D=D, backend=backend)
    mixer, case = probe.build(D, 16), probe.case(2, 16, D)
    if not probe.cls.capabilities.fp64:
        probe.not_applicable("declares fp64=False, and without fp64 rounding cannot be distinguished from errors")
    exact_mixer = copy.deepcopy(mixer).double()
    embedding_BTD = None if case.embedding_BTD is None else case.embedding_BTD.double()
    exact_case = dataclasses.replace(case, x_BTD=case.x_BTD.double(), embedding_BTD=embedding_BTD)
    exact = _values_and_gradients(exact_mixer, exact_mixer, exact_case)
    with pytorch_only():
        eager = _values_and_gradients(mixer, mixer, case)
    compiled = {}
    for key, module, given in (("fp64", exact_mixer, exact_case), ("fp32", mixer, case)):
        torch._dynamo.reset()
        compiled[key] = _values_and_gradients(torch.compile(module, backend=backend), module, given)
    torch._dynamo.reset()
    for name, truth in exact.items():
        largest = max(peak(truth), 1e-30)
        error = peak(compiled["fp64"][name] - truth) / largest
        probe.require(error <= 1e-9, "compilation changes a result in fp64", of=name, relative_error=error)
        rounding = peak(eager[name].double() - truth) / largest
        error = peak(compiled["fp32"][name] - eager[name]) / largest
        probe.require(
            error <= 1e-5 + rounding,
            "compilation changes a result in fp32",
            of=name,
            relative_error=error,
            eager_error=rounding,
        )


def _values_and_gradients(function: Callable[..., Tensor], mixer: Mixer, case: Case) -> dict[str, Tensor]:
    """The output and the gradients of its mean square, by name; `function` is the mixer, eager or compiled."""
    x_BTD = case.x_BTD.clone().requires_grad_()
    with warnings.catch_warnings():
        # torch itself reads .grad of what it passes across a graph break, and warns about it
        warnings.filterwarnings(
            "ignore", message="The .grad attribute of a Tensor that is not a leaf", category=UserWarning
        )
        y_BTD = function(x_BTD, case.context)
        wanted = {"x": x_BTD, **dict(mixer.named_parameters())}
        gradients = torch.autograd.grad(
            y_BTD.square().mean(), list(wanted.values()), allow_unused=True, materialize_grads=True
        )
    return {"the output": y_BTD.detach(), **dict(zip(wanted, gradients, strict=True))}
