"""What the optimiser sees at each step, against values computed by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import tasks
from backbones.mixers import registry
from suite.config.run_config import TrainConfig
from suite.models.inputs import adapter
from suite.models.resolve import resolve_run
from suite.training.optimisation import make_optimizer
from suite.training.run import start
from suite.training.signals import Stop
from suite.training.trainer import Trainer
from tasks.base import Batch
from tests.suite.tiny import tiny_config, tiny_sets
from tests.suite.training.test_start_from_a_worker import Recorder

#: The loss is the weight times a number, so that number is the gradient.
GRADIENTS = (3.0, 0.5, -2.0, 0.25, -0.75, 4.0)
CLIPPED = (1.0, 0.5, -1.0, 0.25, -0.75, 1.0)  # to a norm of 1
#: Two steps of warm-up from half of 0.1, then 0.01 + 0.045 · (1 + cos(k π / 4)) for k = 0 to 3
RATES = (0.05, 0.075, 0.1, 0.0868198, 0.055, 0.0231802)
#: From 1, minus rate · sign(gradient): Adam without momentum
WEIGHTS = (0.95, 0.875, 0.975, 0.8881802, 0.9431802, 0.92)
#: d · old + (1 - d) · new with d = 0, 1 - 2^(-2/3) = 0.3700395, then 0.5
AVERAGES = (0.95, 0.902753, 0.9388765, 0.9135283, 0.9283543, 0.9241771)


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weight * inputs


class KnownGradients:
    """Batches whose loss has the gradients above; evaluation gives the weight."""

    needs_data_dir = False
    primary = SimpleNamespace(name="weight", higher_is_better=True)
    name = "known gradients"

    def train_batches(self, seed, batch_size, start_step=0, workers=0):
        for gradient in GRADIENTS[start_step:]:
            yield Batch(torch.ones(batch_size, 1), torch.full((batch_size, 1), gradient))

    def loss(self, outputs, batch):
        return (outputs * batch.targets).mean()

    def eval_batches(self, split, batch_size, workers=0):
        yield Batch(torch.ones(1, 1), torch.ones(1, 1))

    def n_examples(self, split):
        return 1

    def measure(self, outputs, batch):
        return {"weight": (outputs.item(), 1.0)}

    def summarise(self, sums):
        return {"weight": sums["weight"][0]}


def train_by_hand(tmp_path, monkeypatch) -> SimpleNamespace:
    """Trains the one weight for six steps; returns what the optimiser saw and what was reported."""
    given = {"steps": 6, "lr": 0.1, "min_lr": 0.1, "warmup": 1 / 3, "clip": 1.0, "ema": 0.5, "evals": 6}
    train = TrainConfig(**given, beta1=0, beta2=0, weight_decay=0.5, precision="fp32", batch_size=2)
    config = tiny_config("fashion-mnist").model_copy(update={"train": train})
    seen = SimpleNamespace(rates=[], gradients=[], reported=[], weights=[], averages=[])
    recorder = Recorder(Stop())
    model, task = OneWeight(), KnownGradients()
    trainer: Any = Trainer(
        model,
        task,  # type: ignore[arg-type]
        config,
        device=torch.device("cpu"),
        run_dir=tmp_path,
        observer=recorder,
        stop=recorder.stop,
    )
    step = trainer.optimizer.step

    def recording_step() -> None:
        seen.rates.append(trainer.optimizer.param_groups[0]["lr"])
        seen.gradients.append(model.weight.grad.item())  # type: ignore[union-attr]
        step()
        seen.weights.append(model.weight.item())

    monkeypatch.setattr(trainer.optimizer, "step", recording_step)
    monkeypatch.setattr(recorder, "stepped", lambda step, loss, lr, norm: seen.reported.append((step, lr, norm)))
    monkeypatch.setattr(recorder, "validated", lambda step, metrics: seen.averages.append(metrics["weight"]))
    trainer.fit()
    return seen


def test_six_steps_are_those_computed_by_hand(tmp_path, monkeypatch):
    seen = train_by_hand(tmp_path, monkeypatch)
    assert seen.rates == pytest.approx(RATES, abs=1e-6)
    assert seen.gradients == pytest.approx(CLIPPED, rel=1e-5)
    assert seen.weights == pytest.approx(WEIGHTS, abs=1e-5)
    assert seen.averages == pytest.approx(AVERAGES, abs=1e-5)
    assert [step for step, _, _ in seen.reported] == [1, 2, 3, 4, 5, 6]
    assert [lr for _, lr, _ in seen.reported] == pytest.approx(RATES, abs=1e-6)
    assert [norm for _, _, norm in seen.reported] == pytest.approx([abs(g) for g in GRADIENTS], rel=1e-6)


@pytest.mark.parametrize("ema", ["ema=0", "ema=0.5"])
def test_every_update_is_in_training_mode_also_after_a_validation(monkeypatch, ema):
    modes, update = list[bool](), Trainer._update

    def recorded(self: Trainer, batch: Batch) -> tuple[float, float]:
        modes.append(self.model.training)
        return update(self, batch)

    monkeypatch.setattr(Trainer, "_update", recorded)
    assert start(tiny_config("fashion-mnist", "softmax", ema), data_dir=None, device="cpu").exit_code == 0
    assert modes == [True] * 6


def test_gradients_are_clipped_by_their_euclidean_norm_over_all_parameters(tmp_path):
    """3 and 4 in two tensors: a norm of 5, which is also what is reported."""
    recorder, model = Recorder(Stop()), nn.Linear(1, 1)
    train = TrainConfig(steps=6, lr=0.1, clip=1.0, precision="fp32", batch_size=1, evals=1)
    config = tiny_config("fashion-mnist").model_copy(update={"train": train})
    trainer: Any = Trainer(
        model,
        KnownGradients(),  # type: ignore[arg-type]
        config,
        device=torch.device("cpu"),
        run_dir=tmp_path,
        observer=recorder,
        stop=recorder.stop,
    )
    seen = list[float]()
    trainer.optimizer.step = lambda: seen.extend(p.grad.item() for p in model.parameters() if p.grad is not None)
    _, norm = trainer._update(Batch(torch.full((1, 1), 0.75), torch.full((1, 1), 4.0)))
    assert norm == pytest.approx(5, rel=1e-6)
    assert seen == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.mark.parametrize("mixer", ["fem", "gla", "hypermlp", "softmax"])
def test_vectors_positions_and_what_a_mixer_declares_do_not_decay(mixer):
    made = resolve_run(task="sotu", mixer=mixer, scale="board", sets=tiny_sets("sotu"))
    spec = tasks.get("sotu")(made.config.data).spec
    plan = made.candidate.plan(made.config, spec)
    model = adapter(spec).backbone(plan.shape, plan.layers)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {
        names[id(parameter)]: group["weight_decay"]
        for group in make_optimizer(model, TrainConfig(weight_decay=0.5)).param_groups
        for parameter in group["params"]
    }
    assert decays.keys() == set(names.values())
    declared = registry.get(mixer).no_weight_decay
    for name, parameter in model.named_parameters():
        spared = parameter.ndim < 2 or name == "trunk.positions" or name.rpartition(".")[2] in declared
        assert decays[name] == (0.0 if spared else 0.5), name
    assert any(decay == 0 for name, decay in decays.items() if dict(model.named_parameters())[name].ndim > 1)
