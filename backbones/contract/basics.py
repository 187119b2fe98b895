"""Checks of a module's basics: config, shapes, dtypes, range, the meta device, saving and loading, repeatability."""

from __future__ import annotations

import difflib

import torch
from pydantic import ValidationError
from torch import Tensor

from backbones.contract.probe import Case, Probe, check, run
from backbones.mixers.base import Mixer

LENGTHS = (1, 2, 7, 13, 64)
SCALES = (1e-4, 1.0, 1e4)
#: Of inputs at which bf16 is compared with fp32. At 1e2 the scores of attention differ by thousands, and which key wins
#: depends on their rounding.
COMPARED_SCALES = (1e-2, 1.0)
D = 32


@check(
    "config",
    "is built from its config alone, which survives JSON, is frozen and refuses unknown options",
)
def builds_from_config(probe: Probe) -> None:
    probe.at(D=D, T=16)
    config = probe.config(D, 16)
    again = type(config).model_validate_json(config.model_dump_json())
    probe.require(again == config, "the config read back from JSON differs")
    probe.require(
        isinstance(config, probe.cls.Config), f"size() returns a {type(config).__name__}, not the mixer's Config"
    )
    first, second = (dict(probe.cls(c, D, 16).named_parameters()) for c in (config, again))
    probe.require(
        {n: p.shape for n, p in first.items()} == {n: p.shape for n, p in second.items()},
        "the same config gives other parameters",
    )
    for name in probe.cls.Config.model_fields:
        wrong = name + "x"
        probe.at(option=wrong)
        try:
            probe.cls.Config.model_validate({wrong: getattr(config, name)})
        except ValidationError:
            near = difflib.get_close_matches(wrong, list(probe.cls.Config.model_fields), n=1)
            probe.require(
                near == [name], "the nearest valid name is that of another option", nearest=near[0] if near else ""
            )
        else:
            probe.fail("a misspelt option is accepted")
        probe.at(option=name)
        try:
            setattr(config, name, getattr(config, name))
        except ValidationError:
            continue
        probe.fail("the config can be changed")


@check(
    "shape",
    "returns [B, T, D] for any T from 1 to its length and any B, in fp32 and under bf16 autocast, which is near fp32 "
    "for inputs of scale 1e-2 and 1",
)
def keeps_shape(probe: Probe) -> None:
    mixer = probe.build(D, 64)
    for tokens in LENGTHS:
        for batch in (1, 3):
            for scale in COMPARED_SCALES:
                _compare_precisions(probe, mixer, probe.case(batch, tokens, D, scale=scale), scale)


def _compare_precisions(probe: Probe, mixer: Mixer, case: Case, scale: float) -> None:
    outputs: dict[str, Tensor] = {}
    batch, tokens, _ = case.x_BTD.shape
    for kind in ("float32", "bfloat16 autocast"):
        probe.at(B=batch, T=tokens, D=D, dtype=kind, inputs=f"N(0, {scale:g}²)")
        with torch.autocast(probe.device.type, torch.bfloat16, enabled=kind != "float32"), torch.no_grad():
            outputs[kind] = run(mixer, case)
        shape = tuple(outputs[kind].shape)
        probe.require(shape == tuple(case.x_BTD.shape), "the output has another shape", given=str(shape))
    full, half = outputs["float32"], outputs["bfloat16 autocast"].float()
    error = float((full - half).norm() / full.norm().clamp_min(1e-30))
    # not compared at T = 1: a rectified score that is alone in its row may jump with its sign
    near = tokens == 1 or error <= 0.1
    probe.require(near, "bf16 autocast differs from fp32", relative_error=error, allowed=0.1)


@check(
    "range",
    "outputs and gradients are finite for inputs of scale 1e-4, 1 and 1e4, constant inputs and zeros, in fp32 and "
    "under bf16 autocast",
)
def stays_finite(probe: Probe) -> None:
    mixer = probe.build(D, 64)
    for tokens in (1, 33):
        cases = {f"N(0, {scale:g}²)": probe.case(2, tokens, D, scale=scale) for scale in SCALES}
        cases["all equal"] = probe.case(2, tokens, D).map(lambda z: z[:, :1].expand_as(z).contiguous())
        cases["all zero"] = probe.case(2, tokens, D).map(torch.zeros_like)
        for label, case in cases.items():
            for kind in ("float32", "bfloat16 autocast"):
                probe.at(B=2, T=tokens, D=D, dtype=kind, input=label)
                _require_finite(probe, mixer, case, kind != "float32")


def _require_finite(probe: Probe, mixer: torch.nn.Module, case: Case, autocast: bool) -> None:
    x_BTD = case.x_BTD.clone().requires_grad_()
    with torch.autocast(probe.device.type, torch.bfloat16, enabled=autocast):
        y_BTD = mixer(x_BTD, case.context)
    probe.require(bool(y_BTD.isfinite().all()), "the output is not finite")
    gradients = torch.autograd.grad(y_BTD.float().mean(), [x_BTD, *mixer.parameters()], allow_unused=True)
    for name, gradient in zip(["x", *(n for n, _ in mixer.named_parameters())], gradients, strict=True):
        finite = gradient is None or bool(gradient.isfinite().all())
        probe.require(finite, "a gradient is not finite", of=name)


@check("too-long", "a sequence longer than its length is either mixed as usual or refused with a MixerError")
def refuses_longer(probe: Probe) -> None:
    from backbones.mixers.errors import MixerError

    probe.at(B=1, T=11, D=D, length=8)
    mixer, case = probe.build(D, 8), probe.case(1, 11, D)
    try:
        y_BTD = run(mixer, case)
    except MixerError:
        return
    probe.require(
        y_BTD.shape == case.x_BTD.shape and bool(y_BTD.isfinite().all()), "the sequence is neither refused nor mixed"
    )


@check("meta", "is built and runs on the meta device, with the parameters it has elsewhere")
def runs_on_meta(probe: Probe) -> None:
    probe.at(B=2, T=13, D=D)
    with torch.device("meta"):
        mixer = probe.cls(probe.config(D, 16), D, 16)
    real = probe.build(D, 16)
    for name, tensor in mixer.named_parameters():
        probe.require(tensor.is_meta, "a parameter is not on the meta device", parameter=name)
        probe.require(tensor.shape == real.get_parameter(name).shape, "a parameter has another shape", parameter=name)
    case = probe.case(2, 13, D).map(lambda z: z.to("meta"))
    y_BTD = run(mixer, case)
    probe.require(
        y_BTD.is_meta and y_BTD.shape == case.x_BTD.shape, "the output is not on the meta device, or has another shape"
    )


@check("state-dict", "a module that loads the state_dict of another one gives the same outputs, bit for bit")
def state_dict_round_trips(probe: Probe) -> None:
    probe.at(B=2, T=13, D=D)
    first, second = probe.build(D, 16, seed=0), probe.build(D, 16, seed=1)
    second.load_state_dict(first.state_dict(), strict=True)
    case = probe.case(2, 13, D)
    probe.require(torch.equal(run(first, case), run(second, case)), "the loaded module gives other outputs")


@check(
    "deterministic",
    "the same module and input give the same outputs and gradients, bit for bit, in training and in evaluation",
)
def repeats(probe: Probe) -> None:
    probe.at(B=2, T=13, D=D)
    mixer, case = probe.build(D, 16), probe.case(2, 13, D)
    seen: list[list[Tensor]] = []
    for mode in (True, True, False):
        mixer.train(mode)
        x_BTD = case.x_BTD.clone().requires_grad_()
        y_BTD = mixer(x_BTD, case.context)
        wanted = [x_BTD, *mixer.parameters()]
        seen.append(
            [y_BTD, *torch.autograd.grad(y_BTD.square().mean(), wanted, allow_unused=True, materialize_grads=True)]
        )
    for when, other in (("a second time", seen[1]), ("in evaluation", seen[2])):
        probe.require(torch.equal(seen[0][0], other[0]), f"other outputs {when}")
        probe.require(all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True)), f"other gradients {when}")


@check("reset", "reset_parameters draws every parameter again, from torch's global generator only")
def resets(probe: Probe) -> None:
    probe.at(D=D, T=16)
    mixer = probe.build(D, 16)
    drawn: list[list[Tensor]] = []
    for seed in (3, 3):
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.fill_(7.25)
        torch.manual_seed(seed)
        mixer.reset_parameters()
        drawn.append([p.detach().clone() for p in mixer.parameters()])
        for name, parameter in mixer.named_parameters():
            probe.require(not bool((parameter == 7.25).any()), "a parameter keeps its old value", parameter=name)
    probe.require(all(torch.equal(a, b) for a, b in zip(*drawn, strict=True)), "the same seed draws other parameters")
