"""The budget: certificates equal counts of a real model; a mixer that does not fit is refused with both counts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tasks
from backbones.base import Block, Trunk
from backbones.mixers import registry
from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.models.budget import Plan
from suite.models.candidate import parse
from suite.models.certificate import Certificate
from suite.models.inputs import adapter
from suite.models.resolve import resolve
from tasks.base import ImageInput, InputSpec, SeriesInput, TextInput
from tests.suite.tiny import certify

TASKS = ("sotu", "fashion-mnist", "household-power", "imagenet100")
SMALL = ["dim=32", "model.heads=2", "depth=2", "ffn_width=88"]


def prepared(task: str, mixer: str, sets=(), **more):
    config = resolve(task=task, mixer=mixer, scale="board", sets=[*SMALL, *sets], **more)
    return config, tasks.get(task)(config.data).spec


def check(config: RunConfig, spec: InputSpec) -> tuple[Plan, Certificate]:
    return parse(config.mixer).check(config, spec)


def inputs(spec: InputSpec, batch: int) -> torch.Tensor:
    match spec:
        case TextInput():
            return torch.randint(spec.vocab, (batch, spec.length))
        case ImageInput():
            return torch.randn(batch, spec.channels, spec.height, spec.width)
        case SeriesInput():
            return torch.randn(batch, spec.look_back, spec.channels)


def count(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def count_trunk(trunk: Trunk) -> int:
    """The blocks and the last norm: everything but embedding, positions and head."""
    return count([*trunk.blocks, trunk.norm])


def first_mixer(trunk: Trunk) -> nn.Module:
    block = trunk.blocks[0]
    assert isinstance(block, Block)
    return block.mixer


@pytest.mark.parametrize("mixer", ["softmax", "fem", "no-mixing"])
@pytest.mark.parametrize("task", TASKS)
def test_the_certificate_counts_what_a_real_model_has(task, mixer):
    config, spec = prepared(task, mixer)
    plan, certificate = check(config, spec)
    backbone = adapter(spec).backbone(config.model, plan.layers)
    reference = adapter(spec).backbone(config.model, plan.reference)
    assert certificate.parameters == count_trunk(backbone.trunk)
    assert certificate.reference_parameters == count_trunk(reference.trunk)
    assert certificate.total_parameters == count([backbone])
    assert certificate.mixer_parameters == count([first_mixer(backbone.trunk)])
    assert certificate.reference_mixer_parameters == count([first_mixer(reference.trunk)])
    assert certificate.ratio == certificate.parameters / certificate.reference_parameters
    assert certificate.length == adapter(spec).length == backbone.trunk.positions.shape[0]


@pytest.mark.parametrize(
    ("task", "sets"),
    [
        ("sotu", []),
        ("fashion-mnist", []),
        ("imagenet100", ["patch=56"]),
        ("household-power", []),
        ("household-power", ["head=student-t"]),
        ("household-power", ["head=quantile"]),
    ],
)
def test_the_flops_of_the_reference_are_what_torch_counts(task, sets, monkeypatch):
    """FLOPs per token, image or window; PyTorch counts a whole forward pass. Only its own products run, so that it sees
    all of them.
    """
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    config, spec = prepared(task, "softmax", sets)
    plan, certificate = check(config, spec)
    backbone = adapter(spec).backbone(config.model, plan.layers)
    backbone.reset_parameters()
    batch = 2
    units = batch * (adapter(spec).length if isinstance(spec, TextInput) else 1)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        backbone(inputs(spec, batch))
    assert counter.get_total_flops() / units == pytest.approx(certificate.flops, rel=0.02)


@pytest.mark.parametrize("task", ["sotu", "fashion-mnist"])
def test_decoding_state_is_counted_for_causal_tasks_only(task):
    config, spec = prepared(task, "softmax")
    _, certificate = check(config, spec)
    if not spec.causal:
        assert certificate.state_bytes == 0
        return
    mixer = registry.get("softmax")(config.mixer_options, config.model.dim, adapter(spec).length)
    assert certificate.state_bytes == config.model.depth * mixer.init_state(1, adapter(spec).length).bytes()


def test_a_mixer_too_big_is_refused_with_both_counts_and_the_nearest_fit():
    config, spec = prepared("fashion-mnist", "fem", ["d_v=64"])
    with pytest.raises(UserError) as caught:
        check(config, spec)
    message = str(caught.value)
    certificate = certify(config)
    for what in ("parameters", "reference_parameters", "mixer_parameters", "reference_mixer_parameters"):
        assert f"{getattr(certificate, what):,}" in message
    assert "nearest fit: mixer.d_v=" in message
    assert "--unmatched" in message
    fitting = [part.strip() for part in message.split("nearest fit: ")[1].split(" (or")[0].split(",")]
    assert check(*prepared("fashion-mnist", "fem", fitting))[1].matched


def test_a_mixer_too_small_is_refused_too():
    config, spec = prepared("fashion-mnist", "fem", ["d_v=4", "d_k=4"])
    with pytest.raises(UserError, match="not matched"):
        check(config, spec)


def test_a_run_declared_unmatched_has_a_certificate_that_is_not_matched():
    config, spec = prepared("fashion-mnist", "fem", ["d_v=64"], unmatched=True)
    _, certificate = check(config, spec)
    assert not certificate.matched
    assert len(certificate.reasons) == 2


def test_a_mixer_without_any_size_at_a_shape_is_refused(monkeypatch):
    monkeypatch.setattr(registry.get("fem"), "candidates", classmethod(lambda *_: []))
    config, spec = prepared("fashion-mnist", "fem")
    with pytest.raises(UserError, match=r"fem .*dim=32 .*2 heads.*--set mixer\.heads"):
        check(config, spec)


def test_the_feed_forward_width_uses_what_the_mixer_leaves_up_to_5_percent():
    for task in TASKS:
        config, spec = prepared(task, "fem")
        plan, certificate = check(config, spec)
        left = (certificate.reference_mixer_parameters - certificate.mixer_parameters) / (3 * config.model.dim)
        assert abs(certificate.ffn_width - certificate.reference_ffn_width - left) <= 0.5
        assert abs(certificate.ffn_width / certificate.reference_ffn_width - 1) <= 0.05
        assert {layer.ffn_width for layer in plan.layers} == {certificate.ffn_width}


FEM = [name for name in registry.names() if name.startswith("fem")]
ARMS = [(name, f"{off}=false") for name in FEM for off in ("convolution", "lse", "temperature", "gates")] + [
    (name, arm)
    for name in ("hypermlp", "hyperglu")
    for arm in ("lag_layout=false", "convolution=false", "gates=false", "mixing=R1", "mixing=R2")
]


EMBEDDED = ("sotu", "fashion-mnist", "household-power")


@pytest.mark.parametrize("task", EMBEDDED)
def test_every_mixer_is_matched_on_every_embedded_task_it_supports(task):
    for name in (n for n in registry.names() if registry.origin(n) == "built-in"):
        can = registry.get(name).capabilities
        if can.causal if task == "sotu" else can.bidirectional:
            config = resolve(task=task, mixer=name, scale="quick")
            assert check(config, tasks.get(task)(config.data).spec)[1].matched, name


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["board", "quick", "small"])
@pytest.mark.parametrize("task", EMBEDDED)
def test_every_arm_of_an_ablation_is_matched_on_every_embedded_task(task, scale):
    for mixer, arm in ARMS:
        config = resolve(task=task, mixer=mixer, scale=scale, sets=[arm])
        assert check(config, tasks.get(task)(config.data).spec)[1].matched, (mixer, arm)


def test_a_thin_feed_forward_layer_does_not_admit_an_oversize_mixer():
    """The total is within its tolerance, but the mixer layer is not."""
    config, _ = prepared("fashion-mnist", "fem", ["d_v=20", "d_k=40", "ffn_width=2000"])
    certificate = certify(config)
    assert abs(certificate.ratio - 1) < 0.01
    assert certificate.mixer_ratio > 1.05
    assert not certificate.matched


def test_a_hybrid_has_softmax_in_the_layers_of_its_layout():
    config, spec = prepared("fashion-mnist", "fem", hybrid="first")
    plan, certificate = check(config, spec)
    assert [layer.mixer for layer in plan.layers] == [registry.get("softmax"), registry.get("fem")]
    assert plan.layers[0].ffn_width == config.model.ffn_width
    assert (
        certificate.mixer_parameters
        == registry.get("fem").cost(plan.layers[1].config, 32, adapter(spec).length).parameters
    )
