"""Runs from config to record on real data: what is trained, selected, tested and written."""

from __future__ import annotations

import json
import math

import pytest
import torch

import tasks
from kernels.cpu.library import bf16_product, library, products
from kernels.cpu.products.blas import TITLES
from suite.config.run_config import TrainConfig
from suite.records import record, runs_folder
from suite.records.schema import Record
from suite.training.evaluate import evaluate
from suite.training.run import start
from suite.training.trainer import Trainer
from tests.suite.tiny import TASKS, tiny_arguments, tiny_config
from tests.suite.training.run_helpers import recorded, run


@pytest.mark.parametrize("task", TASKS)
def test_a_run_writes_a_complete_record(task, runs):
    outcome = run(task, "fem")
    made = recorded(outcome)
    assert outcome.exit_code == 0
    assert outcome.path is not None
    assert outcome.path == runs / made.id / record.NAME
    assert (made.status, made.error, made.task, made.mixer) == ("finished", None, task, "fem")
    its_task = tasks.get(task)(tiny_config(task).data)
    names = {metric.name for metric in its_task.metrics}
    assert {split: set(values) for split, values in made.metrics.items()} == dict.fromkeys(
        ("valid", "valid_last", "test"), names
    )
    assert made.n_evaluated == {split: its_task.n_examples(split) for split in ("valid", "test")}
    assert [step for step, _ in made.loss_trace] == [1, 2, 3, 4, 5, 6]
    assert made.certificate.matched is True
    assert made.data is not None
    assert made.selection is not None
    assert made.timing is not None
    assert made.data.fingerprint == its_task.fingerprint
    assert made.selection.step in (2, 4, 6)
    assert made.selection.value == made.metrics["valid"][its_task.primary.name]
    assert made.timing.data_share + made.timing.bookkeeping_share < 1
    assert made.identity == tiny_config(task, "fem", *solved(made)).identity
    multiplied = products()
    assert made.implementations == {"cpu": f"c++, products by {TITLES[multiplied.name]}" if multiplied else "pytorch"}
    assert outcome.path.stat().st_size < record.MAX_BYTES
    assert not list(outcome.path.parent.glob(".*"))  # no half-written files


def test_a_run_in_bf16_records_what_ran_under_autocast_and_the_next_run_does_not(runs):
    half = recorded(run("household-power", "fem", "precision=bf16"))
    assert half.precision == "bf16"
    assert set(half.implementations) == {"cpu", "swiglu", "projection", "gates"}
    if library() and bf16_product():
        assert half.implementations["swiglu"] == half.implementations["projection"] == "c++ in bf16"
    assert set(recorded(run("household-power", "softmax", "precision=bf16")).implementations) == {
        "cpu",
        "swiglu",
        "attention",
    }
    assert set(recorded(run("household-power", "softmax")).implementations) == {"cpu"}


def solved(made: Record) -> list[str]:
    """The widths that the solver chose, as `--set` values."""
    return [f"mixer.{name}={getattr(made.config.mixer_options, name)}" for name in ("d_v", "d_k")]


def test_the_longest_trace_fits_a_record(tmp_path):
    made = run().record
    longest = max((TrainConfig(steps=steps).trace_steps for steps in (1, 199, 200, 399, 400, 5000)), key=len)
    trace = [(step, math.pi * 10 / step) for step in longest]
    record.write(tmp_path, made.model_copy(update={"loss_trace": trace}))


@pytest.mark.parametrize("task", ["fashion-mnist", *[pytest.param(t, marks=pytest.mark.slow) for t in TASKS[1:]]])
def test_the_same_config_gives_the_same_losses_and_metrics_bit_for_bit(task):
    one, two, other = run(task).record, run(task).record, run(task, seed=1).record
    assert one.loss_trace == two.loss_trace
    assert record.same_figures(one, two)
    assert one.identity == two.identity
    assert one.id != two.id
    assert one.loss_trace != other.loss_trace


def test_weight_decay_excludes_vectors_positions_and_what_a_mixer_names(monkeypatch):
    trainers: list[Trainer] = []
    real = Trainer.fit

    def fit(self):
        trainers.append(self)
        return real(self)

    monkeypatch.setattr(Trainer, "fit", fit)
    run("fashion-mnist", "fem", "steps=1", "weight_decay=0.25")
    parameters, optimizer = dict(trainers[0].model.named_parameters()), trainers[0].optimizer
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0.25 for p in group["params"]}
    excluded = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0.0 for p in group["params"]}
    assert decayed | excluded == {id(p) for p in parameters.values()}
    matrices = {name for name, p in parameters.items() if id(p) in decayed}
    assert all(parameters[name].ndim > 1 for name in matrices)
    assert "trunk.positions" not in matrices
    assert "trunk.blocks.0.mixer.w_beta" not in matrices
    assert {"head.weight", "trunk.blocks.0.ffn.down.weight", "trunk.blocks.0.mixer.out_proj.weight"} <= matrices


def test_training_lowers_the_loss():
    made = run("fashion-mnist", "fem", "steps=40", "lr=1e-2").record
    losses = [loss for _, loss in made.loss_trace]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize("task", TASKS)
def test_the_test_split_is_read_once_and_after_everything_else(task, monkeypatch):
    read: list[str] = []
    steps: list[int] = []
    cls = tasks.get(task)
    real_batches, real_update = cls.eval_batches, Trainer._update

    def eval_batches(self, split, *more):
        read.append(split)
        return real_batches(self, split, *more)

    def update(self, batch):
        steps.append(len(read))
        return real_update(self, batch)

    monkeypatch.setattr(cls, "eval_batches", eval_batches)
    monkeypatch.setattr(Trainer, "_update", update)
    assert run(task).exit_code == 0
    assert read[:4] == ["valid", "valid", "valid", "test"]
    assert set(read[4:]) <= {"valid"}  # the attention maps, after the record is written
    assert max(steps) == 2  # the last update came before the third validation


def scripted(monkeypatch, metric: str, values: list[float]) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Makes validation return these values; the list that is returned collects the weights of every evaluation."""
    seen: list[tuple[str, dict[str, torch.Tensor]]] = []

    def scripted_evaluate(model, task, split, **more):
        metrics, count = evaluate(model, task, split, **more)
        if split == "valid":
            metrics[metric] = values[len(seen)]
        seen.append((split, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        return metrics, count

    monkeypatch.setattr("suite.training.trainer.evaluate", scripted_evaluate)
    monkeypatch.setattr("suite.training.execution.evaluate", scripted_evaluate)
    return seen


@pytest.mark.parametrize(
    ("task", "metric", "values", "best"),
    [
        ("fashion-mnist", "top1", [0.3, 0.9, 0.5], 1),
        ("fashion-mnist", "top1", [0.9, 0.9, 0.5], 0),
        ("household-power", "mse", [0.9, 0.3, 0.5], 1),
        ("sotu", "bits_per_byte", [3.0, 2.0, 1.0], 2),
    ],
)
@pytest.mark.parametrize("ema", ["ema=0", pytest.param("ema=0.5", marks=pytest.mark.slow)])
def test_the_checkpoint_that_validation_selects_is_tested(monkeypatch, task, metric, values, best, ema):
    seen = scripted(monkeypatch, metric, values)
    made = run(task, "softmax", ema).record
    assert [split for split, _ in seen] == ["valid", "valid", "valid", "test"]
    assert made.selection is not None
    assert made.selection.step == 2 * (best + 1)
    assert made.selection.value == made.metrics["valid"][metric] == values[best]
    assert made.metrics["valid_last"][metric] == values[-1]
    tested = seen[-1][1]
    assert all(torch.equal(tested[name], tensor) for name, tensor in seen[best][1].items())
    assert any(not torch.equal(tested[name], tensor) for name, tensor in seen[(best + 1) % 3][1].items())


def test_averaged_weights_change_the_evaluation_and_not_the_training():
    plain, averaged = run().record, run("fashion-mnist", "softmax", "ema=0.9").record
    assert averaged.loss_trace == plain.loss_trace
    for split in ("valid", "valid_last", "test"):
        assert averaged.metrics[split]["loss"] != plain.metrics[split]["loss"]


def test_an_example_that_is_not_evaluated_fails_the_run(monkeypatch):
    cls = tasks.get("household-power")
    whole = cls.eval_batches
    monkeypatch.setattr(
        cls, "eval_batches", lambda self, split, size, workers=0: list(whole(self, split, 10, workers))[:-1]
    )
    made = run("household-power").record
    assert made.status == "failed"
    assert made.error is not None
    assert "10 examples of valid were evaluated, it has 16" in made.error


def test_an_unmatched_run_needs_its_option_and_never_ranks(suite):
    wide = [*tiny_arguments("fashion-mnist", "fem", "d_v=64", "d_k=128", "steps=1")]
    refused = suite(*wide)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "not matched" in refused.err
    assert suite(*wide, "--unmatched").code == 0
    [one] = json.loads(suite("leaderboard", "--json").out)
    assert [(row["place"], row["matched"]) for row in one["rows"]] == [(None, False)]


def test_a_hybrid_may_be_tested_again_without_its_other_layers(monkeypatch):
    config = tiny_config("fashion-mnist", "fem")
    config = config.model_copy(update={"hybrid": (1,), "skip_variant_layers": True})
    skipped: list[frozenset[int]] = []

    def recording_evaluate(model, *arguments, **more):
        skipped.append(model.trunk.skipped)
        return evaluate(model, *arguments, **more)

    monkeypatch.setattr("suite.training.execution.evaluate", recording_evaluate)
    made = start(config, data_dir=None, device="cpu").record
    assert skipped == [frozenset(), frozenset({1})]  # counted from 0
    assert set(made.metrics["test_skip"]) == set(made.metrics["test"])
    assert made.metrics["test_skip"]["loss"] != made.metrics["test"]["loss"]


def test_a_progress_line_per_validation_goes_to_stderr_the_result_to_stdout(suite):
    ended = suite(*tiny_arguments("fashion-mnist"))
    assert [line.split("  ")[0] for line in ended.err.splitlines()] == [
        f"fashion-mnist · softmax: step {s}/6" for s in (2, 4, 6)
    ]
    assert "test top1" in ended.out
    assert f"record: {runs_folder.home()}" in ended.out
