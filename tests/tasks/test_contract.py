"""What holds for every task: batches are a function of (seed, step), every example counts once, metrics ignore the
batch size.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from pydantic import ValidationError

import tasks
from tasks.base import Batch, DataError, ImageInput, SeriesInput, Shard, TextInput

SMALL = {
    "sotu": {"length": 64, "valid_limit": 41, "test_limit": 45},
    "fashion-mnist": {"mixup": 0.2, "erase": 0.5, "label_smoothing": 0.1},
    "household-power": {"horizon": 24, "valid_limit": 41, "test_limit": 45},
    "exchange": {"horizon": 24, "track": "fixed-96", "valid_limit": 41, "test_limit": 45},
    "csv": {"horizon": 24, "track": "searched", "look_back": 96, "valid_limit": 41, "test_limit": 45},
    "gluonts": {"dataset": "power_hourly", "look_back": 48, "head": "student-t", "test_limit": 45},
    "imagenet100": {"image_size": 32, "patch": 8},
    "cifar10": {"patch": 8},
    "folder": {"image_size": 32, "patch": 8, "stored_side": 30},
    "wikitext2": {"length": 64, "tokenizer": "bytes", "valid_limit": 41, "test_limit": 45},
    "text": {"length": 32, "tokenizer": "bpe", "vocab": 300, "valid_limit": 41, "test_limit": 45},
    "mqar": {"train_examples": 300, "valid_examples": 41, "test_examples": 45, "vocab": 128},
    "mad-in-context": {"train_examples": 300, "valid_examples": 41, "test_examples": 45, "length": 32},
    "mad-noisy": {"train_examples": 300, "valid_examples": 41, "test_examples": 45, "length": 32},
    "mad-fuzzy": {"train_examples": 300, "valid_examples": 41, "test_examples": 45, "length": 48},
    "mad-memorize": {"train_examples": 300, "valid_examples": 41, "test_examples": 45, "vocab": 20},
    "mad-compress": {"train_examples": 300, "valid_examples": 41, "test_examples": 45, "length": 8},
    "mad-copy": {"train_examples": 300, "valid_examples": 41, "test_examples": 45, "length": 24, "tokens": 4},
}

FOLDERS = {
    "vision": "_image_folder",
    "cifar10": "_cifar_folder",
    "folder": "_own_folder",
    "forecasting": "_series_folder",
    "language": "_wikitext_folder",
    "text": "_text_folder",
}
#: Much like another task of the list: tested with the slow ones.
SLOW = {"folder"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SMALL]
)
def task(request, tmp_path_factory):
    """Every task with options that make it small, and every augmentation on."""
    cls = tasks.get(request.param)
    folder = request.getfixturevalue(FOLDERS.get(cls.name, FOLDERS[cls.domain])) if cls.needs_data_dir else None
    made = cls(cls.Options(**SMALL[request.param]), folder)
    made.load()
    return made


def take(iterator, n):
    return list(itertools.islice(iterator, n))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


def outputs_of(task, batch: Batch) -> torch.Tensor:
    """A fixed model, one example at a time alike in every batch: no learning, but different outputs for different
    inputs.
    """
    spec = task.spec
    generator = torch.Generator().manual_seed(7)
    if isinstance(spec, TextInput):
        return torch.randn(spec.vocab, spec.vocab, generator=generator)[batch.inputs]
    if isinstance(spec, ImageInput):
        middle = spec.channels * spec.height * spec.width // 2
        return batch.inputs.flatten(1)[:, middle : middle + spec.classes]
    assert isinstance(spec, SeriesInput)
    point = batch.inputs[:, -1:].expand(-1, spec.horizon, -1) * 0.5
    return point if spec.head == "point" else torch.stack([point, 0.1 + point.abs(), 3 + point.abs()], dim=-1)


def evaluate(task, split, batch_size):
    totals: dict[str, tuple[float, float]] = {}
    n = 0
    for batch in task.eval_batches(split, batch_size):
        n += batch.size
        for name, (total, count) in task.measure(outputs_of(task, batch), batch).items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + total, before[1] + count)
    return n, task.summarise(totals)


def test_batches_depend_on_seed_and_step_only(task):
    first = take(task.train_batches(3, 5), 3)
    torch.manual_seed(99)
    assert all(map(same, first, take(task.train_batches(3, 5), 3)))
    assert not any(map(same, first, take(task.train_batches(4, 5), 3)))
    assert not same(first[0], first[1])


def test_resuming_at_a_step_gives_the_batches_an_uninterrupted_run_would_see(task):
    batch_size = 90  # so that the small folder's epochs end inside the steps
    whole = take(task.train_batches(1, batch_size), 4)
    assert all(map(same, whole[2:], take(task.train_batches(1, batch_size, start_step=2), 2)))


def joined(batches: list[Batch]) -> Batch:
    return Batch(torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches]))


@pytest.mark.parametrize("world", [2, 3])
def test_the_shards_of_a_training_batch_joined_are_the_whole_batch(task, world):
    whole = next(task.train_batches(2, 12, start_step=3))
    parts = [next(task.train_batches(2, 12, start_step=3, shard=Shard(rank, world))) for rank in range(world)]
    assert {part.size for part in parts} == {12 // world}
    assert same(joined(parts), whole)
    with pytest.raises(DataError, match=rf"13 .* {world} processes"):
        next(task.train_batches(2, 13, shard=Shard(0, world)))


@pytest.mark.parametrize("world", [2, 3])
def test_the_shards_of_a_split_joined_are_the_whole_split(task, world):
    whole = joined(list(task.eval_batches("valid", 7)))
    parts = [list(task.eval_batches("valid", 7, shard=Shard(rank, world))) for rank in range(world)]
    assert same(joined([batch for part in parts for batch in part]), whole)
    assert whole.inputs.shape[0] == task.n_examples("valid")


def test_batches_leave_the_global_generators_alone(task):
    import random

    import numpy as np

    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    take(task.train_batches(0, 4), 2)
    take(task.eval_batches("valid", 4), 2)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


def test_batches_have_the_shapes_of_the_spec(task):
    batch, spec = next(task.train_batches(0, 6)), task.spec
    if isinstance(spec, TextInput):
        assert batch.inputs.shape == batch.targets.shape == (6, spec.length)
        assert int(batch.inputs.max()) < spec.vocab
    elif isinstance(spec, ImageInput):
        assert batch.inputs.shape == (6, spec.channels, spec.height, spec.width)
        assert batch.targets.shape == (6, spec.classes)  # mixed
        assert torch.allclose(batch.targets.sum(-1), torch.ones(6))
    else:
        assert batch.inputs.shape == (6, spec.look_back, spec.channels)
        assert batch.targets.shape == (6, spec.horizon, spec.channels)
    assert batch.inputs.is_floating_point() == (not isinstance(spec, TextInput))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_do_not_change_with_the_batch_size_and_every_example_is_evaluated(task, split):
    (n1, by_1), (n7, by_7), (n32, by_32) = (evaluate(task, split, size) for size in (1, 7, 32))
    assert n1 == n7 == n32 == task.n_examples(split)
    assert by_1 == pytest.approx(by_7, rel=1e-12)
    assert by_1 == pytest.approx(by_32, rel=1e-12)
    assert set(by_1) == {metric.name for metric in task.metrics}
    assert "loss" in by_1


def test_the_loss_is_a_scalar_with_a_gradient(task):
    batch = next(task.train_batches(0, 4))
    outputs = outputs_of(task, batch).float().requires_grad_()
    loss = task.loss(outputs, batch)
    loss.backward()
    assert loss.shape == ()
    assert outputs.grad is not None
    assert outputs.grad.abs().sum() > 0


def test_the_fingerprint_is_a_sha256_and_the_same_each_time(task):
    again = type(task)(task.options, task.data_dir)
    assert again.fingerprint == task.fingerprint == task.info().fingerprint
    assert len(task.fingerprint) == 64


def test_options_out_of_range_or_unknown_are_refused(task):
    with pytest.raises(ValidationError):
        task.Options(no_such_option=1)
    for name in ("length", "patch", "horizon", "image_size"):
        if name in task.Options.model_fields:
            with pytest.raises(ValidationError):
                task.Options(**{name: -1 if task.Options.model_fields[name].default == 0 else 0})


def test_when_a_task_that_needs_no_folder_is_given_one_then_it_says_that_it_has_no_effect(task, tmp_path):
    if not task.needs_data_dir:
        with pytest.raises(
            DataError, match=r"(ships its data|draws its data by a rule), so --data-dir .* would have no effect"
        ):
            type(task)(None, tmp_path)
