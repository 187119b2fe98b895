"""What is counted on small copies of a model is what the whole model has, computes, moves and holds."""

from __future__ import annotations

import pytest
import torch

import tasks
from backbones.implementations import without_compiled_kernels
from backbones.mixers import registry
from suite.bench.timing import peak_bytes
from suite.bench.training import training_step
from suite.errors import UserError
from suite.models.candidate import parse
from suite.models.resolve import Resolved
from suite.planning.device_memory import FP32, MOMENTS, Training, device_memory
from suite.planning.model_count import ModelCount, checked_plan, count_model
from suite.planning.step_work import Amounts, StepWork, step_work
from suite.training.optimisation import make_optimizer
from tests.suite.tiny import RECALL, SHAPE, certify, tiny_config

BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
NO_WORK = Amounts(0, 0, 0, 0)


@pytest.fixture
def counted_without_steps(monkeypatch):
    """Parameters and FLOPs alone: counting steps takes a second per mixer."""
    monkeypatch.setattr(
        "suite.planning.model_count.step_work", lambda *_, **__: StepWork(NO_WORK, NO_WORK, NO_WORK, NO_WORK)
    )


def counted(config, *, compiled: bool = True) -> ModelCount:
    task = tasks.get(config.task)(config.data)
    plan = parse(config.mixer).plan(config, task.spec)
    return count_model(task, plan.shape, plan.layers, "fp32", compiled=compiled)


@pytest.mark.parametrize("mixer", BUILT_IN)
def test_parameters_and_moments_are_those_of_the_real_model(counted_without_steps, mixer):
    task = "sotu" if registry.get(mixer).capabilities.causal else "fashion-mnist"
    config = tiny_config(task, mixer)
    found = counted(config)
    candidate, subject = parse(mixer), tasks.get(task)(config.data)
    model = candidate.build(config, subject, candidate.plan(config, subject.spec))
    optimizer = make_optimizer(model, config.train)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    trained = [p for p in model.parameters() if p.requires_grad]
    moments = [x for p in trained for key, x in optimizer.state[p].items() if key != "step"]
    memory = device_memory(Training(found, ema=False), 8, 2)
    assert memory.optimiser == sum(x.numel() * x.element_size() for x in moments)
    assert memory.gradients == sum(FP32 * p.numel() for p in trained)
    assert memory.parameters >= sum(FP32 * p.numel() for p in trained)
    assert memory.parameters == FP32 * certify(config).total_parameters
    assert MOMENTS == 2 * FP32


@pytest.mark.parametrize("mixer", BUILT_IN)
def test_flops_are_those_of_the_certificate(counted_without_steps, mixer):
    task = "sotu" if registry.get(mixer).capabilities.causal else "fashion-mnist"
    config = tiny_config(task, mixer)
    found, certificate = counted(config), certify(config)
    assert found.flops == certificate.flops * (certificate.length if certificate.flops_unit == "token" else 1)
    assert 0 < found.computed <= found.flops


def test_a_causal_mask_spares_work_and_a_bidirectional_one_none(counted_without_steps):
    text, image = counted(tiny_config("sotu")), counted(tiny_config("fashion-mnist"))
    assert text.computed < text.flops
    assert image.computed == image.flops


@pytest.mark.parametrize(
    ("task", "mixer", "sets"),
    [
        ("sotu", "softmax", ("depth=3",)),
        ("sotu", "fem", ("depth=3",)),
        ("fashion-mnist", "mamba2", ("depth=4",)),
        ("household-power", "softmax", ()),
        ("mqar", "retnet", RECALL),
    ],
)
def test_the_predicted_peak_is_the_allocators(task, mixer, sets):
    config = tiny_config(task, mixer, *sets)
    subject = tasks.get(task)(config.data)
    subject.load()
    batch = next(subject.train_batches(0, config.train.batch_size))

    def two_steps() -> None:
        step = training_step(Resolved(config, parse(mixer)), subject, batch)
        step()
        step()

    predicted = device_memory(Training(counted(config), ema=False, selects=False), config.train.batch_size).total
    assert predicted == pytest.approx(peak_bytes(two_steps), rel=0.05)


def test_a_hybrid_is_counted_by_the_kinds_of_its_layers():
    pure, other, hybrid = (
        counted(tiny_config("sotu", mixer, "depth=4").model_copy(update={"hybrid": layers})).work.of(4).moved
        for mixer, layers in (("softmax", ()), ("fem", ()), ("fem", (2, 4)))
    )
    assert hybrid == pytest.approx((pure + other) / 2, rel=0.02)


def test_counting_without_computing_gives_the_same_work():
    config = tiny_config("sotu", "fem", "length=256")
    task = tasks.get("sotu")(config.data)
    plan = checked_plan(config, task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suite.planning.step_work.nullcontext", without_compiled_kernels)
        computed = step_work(task, plan.shape, plan.layers, "fp32", compiled=True)
    assert step_work(task, plan.shape, plan.layers, "fp32", compiled=False) == computed


def test_a_baseline_is_refused_by_name():
    config = tiny_config("household-power", "baseline/ridge")
    with pytest.raises(UserError, match="baseline/ridge is a baseline"):
        checked_plan(config, tasks.get(config.task)(config.data))


def test_the_shape_of_tiny_runs_has_two_layers():
    """The copies have one and two: these tests also need models with more."""
    assert "depth=2" in SHAPE
