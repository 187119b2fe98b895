"""What the optimiser sees at each step, against values computed by hand, and that every option has an effect."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import tasks
from backbones.mixers import registry
from suite.config.run_config import RunConfig, TrainConfig
from suite.models.inputs import adapter
from suite.models.resolve import resolve_run, shipped_config
from suite.training.evaluate import evaluate
from suite.training.optimisation import CosineSchedule, make_optimizer, parameter_groups
from suite.training.run import start
from suite.training.signals import Stop
from suite.training.trainer import Trainer
from tasks.base import Batch
from tests.suite.tiny import TASKS, tiny_arguments, tiny_config, tiny_sets
from tests.suite.training.test_resume import equal_runs
from tests.suite.training.test_start_from_a_worker import Recorder


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """Neither tracking nor pictures: they take longer than these runs."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.execution.show_pictures", lambda *_: None)


# --- six steps by hand ---

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


# --- timm's AdamW and schedule, bit for bit; runs do not import timm ---


@pytest.mark.parametrize("steps", [1, 2, 6, 97])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.34, 1.0])
def test_learning_rates_are_those_of_timm_bit_for_bit(steps, warmup):
    from timm.scheduler import CosineLRScheduler

    train = TrainConfig(steps=steps, lr=3e-4, min_lr=0.07, warmup=warmup, evals=1)
    ours, theirs = (make_optimizer(nn.Linear(2, 2), train) for _ in range(2))
    warm = round(warmup * steps)
    schedule = CosineLRScheduler(
        theirs,
        t_initial=max(steps - warm, 1),
        lr_min=train.min_lr * train.lr,
        t_in_epochs=False,
        warmup_t=warm,
        warmup_lr_init=train.lr / max(warm, 1),
        warmup_prefix=True,
    )
    own = CosineSchedule(ours, train)
    for step in range(steps + 3):
        own.step_update(step)
        schedule.step_update(step)
        rates = [{group["lr"] for group in optimizer.param_groups} for optimizer in (ours, theirs)]
        assert rates[0] == rates[1], step


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_updates_and_groups_are_those_of_timm_bit_for_bit(weight_decay):
    from timm.optim import create_optimizer_v2, param_groups_weight_decay

    train = TrainConfig(lr=1e-2, weight_decay=weight_decay)
    models = []
    for own in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
        groups = parameter_groups(model, weight_decay) if own else param_groups_weight_decay(model, weight_decay)
        betas = (train.beta1, train.beta2)
        other = create_optimizer_v2(groups, opt="adamw", lr=train.lr, weight_decay=0.0, betas=betas)
        optimizer = make_optimizer(model, train) if own else other
        for _ in range(3):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        optimizer.load_state_dict(optimizer.state_dict())
        models.append([*model.parameters(), *(group["weight_decay"] for group in optimizer.param_groups)])
    assert len(models[0]) == len(models[1])
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*models, strict=True))


# --- options ---

OTHER: dict[str, Any] = {
    "steps": 5,
    "batch_size": 4,
    "lr": 3e-4,
    "weight_decay": 0.5,
    "beta1": 0.5,
    "beta2": 0.5,
    "warmup": 0.5,
    "min_lr": 0.5,
    "clip": 0.01,
    "ema": 0.9,
    "evals": 2,
    "eval_batch_size": 250,
    "accumulate": 2,
    "precision": "bf16",
}


def effects(monkeypatch, **options: object) -> dict[str, object]:
    """Everything that can be seen of a short run: what the model was given, and what was reported."""
    seen: dict[str, list[object]] = {"sizes": [], "steps": [], "metrics": [], "parts": []}

    class Watching(Recorder):
        def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
            seen["steps"].append((step, loss, lr, grad_norm))

        def validated(self, step: int, metrics: dict[str, float]) -> None:
            seen["metrics"].append((step, metrics))

    def watched(model, task, split, **more):
        seen["sizes"].append(more["batch_size"])
        return evaluate(model, task, split, **more)

    short = ("warmup=0.2", "length=16", "depth=1")
    config = tiny_config("sotu", "fem", *short, *(f"train.{k}={v}" for k, v in options.items()))
    loss = tasks.get("sotu").loss
    with monkeypatch.context() as patch:
        patch.setattr("suite.training.trainer.evaluate", watched)
        patch.setattr(
            tasks.get("sotu"),
            "loss",
            lambda self, outputs, batch: seen["parts"].append(batch.size) or loss(self, outputs, batch),  # type: ignore[func-returns-value]
        )
        stop = Stop()
        assert start(config, data_dir=None, device="cpu", observer=Watching(stop), stop=stop).exit_code == 0
    return dict(seen)


@pytest.mark.slow
def test_every_training_option_has_an_effect(monkeypatch):
    assert OTHER.keys() == TrainConfig.model_fields.keys()
    usual = effects(monkeypatch)
    assert effects(monkeypatch) == usual
    without = [name for name, value in OTHER.items() if effects(monkeypatch, **{name: value}) == usual]
    assert without == []


# --- batches ---


def trained_on(monkeypatch, config: RunConfig) -> list[Batch]:
    """The batches of a run's steps."""
    seen: list[Batch] = []
    update = Trainer._update
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", lambda self, batch: seen.append(batch) or update(self, batch))  # type: ignore[func-returns-value]
        assert start(config, data_dir=None, device="cpu").exit_code == 0
    return seen


@pytest.mark.parametrize("task", TASKS)
def test_a_run_trains_on_the_batches_of_its_task_and_seed(monkeypatch, task):
    config = tiny_config(task, seed=3)
    its_task = tasks.get(task)(config.data)
    its_task.load()
    wanted = its_task.train_batches(3, config.train.batch_size)
    batches = trained_on(monkeypatch, config)
    assert len(batches) == 6
    for batch in batches:
        expected = next(wanted)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.targets, expected.targets)


@pytest.mark.parametrize("task", ["household-power", "mqar"])
@pytest.mark.slow
def test_two_epochs_are_different_orders_of_the_same_examples(task):
    its_task = tasks.get(task)(shipped_config(task, "board").data)
    its_task.load()
    n = its_task.n_examples("train")
    batches = its_task.train_batches(0, n)
    one, two = (rows(next(batches)) for _ in range(2))
    assert Counter(one) == Counter(two)
    assert sum(a != b for a, b in zip(one, two, strict=True)) > 0.9 * n
    assert rows(next(its_task.train_batches(1, n))) != one  # another seed


def rows(batch: Batch) -> list[bytes]:
    return [
        row.numpy().tobytes() + target.numpy().tobytes()
        for row, target in zip(batch.inputs, batch.targets, strict=True)
    ]


# --- gradient accumulation ---


@pytest.mark.parametrize("task", ["sotu", "fashion-mnist", "mqar"])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_has_the_gradient_of_the_whole_one(task, parts, tmp_path):
    """To the rounding of sums, also where rows score different numbers of tokens."""
    sets = ("dim=32", "model.heads=2", "depth=1", "ffn_width=88", "batch_size=8", "dropout=0")
    made = resolve_run(task=task, mixer="softmax", scale="board", sets=[*sets, f"accumulate={parts}", "precision=fp32"])
    its_task = tasks.get(task)(made.config.data)
    its_task.load()
    batch = next(its_task.train_batches(0, 8))
    batch = Batch(batch.inputs.clone(), batch.targets.clone())  # they may share memory
    if not batch.targets.is_floating_point() and batch.targets.ndim > 1:
        batch.targets[:5, 2:] = -100
    losses, gradients = [], []
    for accumulate in (1, parts):
        torch.manual_seed(0)
        model = made.candidate.build(made.config, its_task, made.candidate.plan(made.config, its_task.spec))
        config = made.config.model_copy(
            update={"train": made.config.train.model_copy(update={"accumulate": accumulate, "clip": 1e9})}
        )
        recorder = Recorder(Stop())
        trainer = Trainer(
            model, its_task, config, device=torch.device("cpu"), run_dir=tmp_path, observer=recorder, stop=recorder.stop
        )
        losses.append(sum(trainer._backward(part, weight) for part, weight in trainer._parts(batch)))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_accumulation_changes_no_identity_without_it_and_shares_a_board_with_it():
    usual, parts = tiny_config("fashion-mnist"), tiny_config("fashion-mnist", "softmax", "accumulate=4")
    assert "accumulate" not in usual.recorded()["train"]
    assert tiny_config("fashion-mnist", "softmax", "accumulate=1").identity == usual.identity
    assert parts.identity != usual.identity
    assert parts.group == usual.group


def test_a_run_with_accumulation_resumes_bit_for_bit_and_is_close_to_the_whole_one(monkeypatch):
    import signal

    from suite.training.run import resume
    from tests.suite.training.test_resume import interrupted_at

    whole = start(tiny_config("sotu", "fem", "accumulate=4"), data_dir=None, device="cpu").record
    stopped = interrupted_at(monkeypatch, 3, signal.SIGTERM, "accumulate=4", task="sotu").record
    assert equal_runs(resume(stopped.id, data_dir=None, device="cpu").record, whole)
    large = start(tiny_config("sotu", "fem"), data_dir=None, device="cpu").record
    assert [loss for _, loss in whole.loss_trace] == pytest.approx([loss for _, loss in large.loss_trace], rel=1e-4)


def test_a_model_with_statistics_of_the_batch_refuses_parts_in_one_line(suite, runs):
    ended = suite(*tiny_arguments("household-power", "fem", "accumulate=2"))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "accumulate" in ended.err
    assert list(runs.iterdir()) == []


def test_more_parts_than_rows_are_refused_in_one_line(suite):
    ended = suite("show", "--task", "sotu", "--mixer", "fem", "--set", "batch_size=8", "--set", "accumulate=9")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "accumulate 9 must be at most batch_size 8" in ended.err
