"""fashion-mnist: balanced splits that share no image, and augmentations that follow their options."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.base import Batch
from tasks.images.classification import ImageOptions
from tasks.images.fashion_mnist import SIDE, FashionMnist, FashionMnistOptions, erased
from tasks.randomness import AUGMENT, generator

PLAIN = {"flip": 0.0, "shift": 0, "erase": 0.0}
CUTMIX = {"cutmix": 1.0}


@pytest.fixture
def fashion(embedded_tasks):
    return embedded_tasks["fashion-mnist"]


def test_splits_are_balanced(fashion):
    for split, per_class in (("train", 450), ("valid", 50), ("test", 200)):
        assert fashion.labels[split].bincount().tolist() == [per_class] * 10
        assert fashion.n_examples(split) == len(fashion.images[split]) == 10 * per_class


def test_no_image_appears_twice_in_one_or_in_two_splits(fashion):
    images = [image.numpy().tobytes() for split in ("train", "valid", "test") for image in fashion.images[split]]
    assert len(set(images)) == len(images) == 7000


def test_pixels_are_standardised_with_the_training_images(fashion):
    train = torch.cat([b.inputs for b in fashion.eval_batches("train", 500)]).double()
    assert train.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.std().item() == pytest.approx(1, abs=1e-5)
    test = torch.cat([b.inputs for b in fashion.eval_batches("test", 500)]).double()
    assert abs(test.mean().item()) > 1e-4


def test_an_epoch_without_augmentation_contains_every_training_image_once():
    task = FashionMnist(FashionMnistOptions(**PLAIN))
    batches = task.train_batches(0, 500)
    seen = torch.cat([next(batches).inputs for _ in range(9)])
    everything = torch.cat([b.inputs for b in task.eval_batches("train", 500)])
    assert torch.equal(seen.flatten(1).sum(1).sort().values, everything.flatten(1).sum(1).sort().values)
    assert not torch.equal(seen, everything)


def test_a_flip_mirrors_each_image_left_to_right():
    plain, flipped = (
        next(FashionMnist(FashionMnistOptions(**{**PLAIN, "flip": p})).train_batches(0, 8)) for p in (0.0, 1.0)
    )
    assert torch.equal(plain.inputs.flip(-1), flipped.inputs)
    assert torch.equal(plain.targets, flipped.targets)


def test_a_flip_of_one_half_mirrors_about_half_of_the_images():
    plain, some = (
        next(FashionMnist(FashionMnistOptions(**{**PLAIN, "flip": p})).train_batches(0, 1000)) for p in (0.0, 0.5)
    )
    mirrored = (plain.inputs.flip(-1) == some.inputs).flatten(1).all(1)
    untouched = (plain.inputs == some.inputs).flatten(1).all(1)
    assert (mirrored | untouched).all()
    assert 430 < int(mirrored.sum()) < 570


def test_a_shift_moves_the_image_by_whole_pixels_and_fills_with_black():
    task = FashionMnist(FashionMnistOptions(**{**PLAIN, "shift": 3}))
    plain = next(FashionMnist(FashionMnistOptions(**PLAIN)).train_batches(0, 20)).inputs[:, 0]
    black = (0 - task_stats(task)[0]) / task_stats(task)[1]
    moves = set()
    for before, after in zip(plain, next(task.train_batches(0, 20)).inputs[:, 0], strict=True):
        padded = torch.nn.functional.pad(before[None], (3, 3, 3, 3), value=black)[0]
        found = [
            (dy, dx)
            for dy in range(7)
            for dx in range(7)
            if torch.allclose(padded[dy : dy + SIDE, dx : dx + SIDE], after, rtol=0, atol=1e-6)
        ]
        assert found
        moves.add(found[0])
    assert len(moves) > 5


def task_stats(task):
    task.load()
    return task.mean, task.std


def test_erasing_masks_one_rectangle_within_its_limits():
    masks = erased(2000, 0.5, generator(AUGMENT, 0, 0))
    chosen = masks.flatten(1).any(1)
    assert 900 < int(chosen.sum()) < 1100
    for mask in masks[chosen][:200, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])
        for side in (rows, columns):
            places = side.nonzero().flatten()
            assert torch.equal(places, torch.arange(int(places[0]), int(places[-1]) + 1))
    assert masks[chosen].double().mean().item() == pytest.approx(0.135, abs=0.02)


def test_mixup_mixes_pairs_and_their_labels_in_the_same_proportion():
    plain = next(FashionMnist(FashionMnistOptions(**PLAIN)).train_batches(0, 16))
    mixed = next(FashionMnist(FashionMnistOptions(**PLAIN, mixup=1.0)).train_batches(0, 16))
    weight = float(mixed.targets[0].max())
    onehot = torch.nn.functional.one_hot(plain.targets, 10).float()
    for own in (weight, 1 - weight):
        expected = own * plain.inputs + (1 - own) * plain.inputs.roll(1, 0)
        if torch.allclose(mixed.inputs, expected, atol=1e-5):
            assert torch.allclose(mixed.targets, own * onehot + (1 - own) * onehot.roll(1, 0), atol=1e-5)
            return
    raise AssertionError("no proportion explains the mixed images")


def test_cutmix_alone_pastes_a_rectangle_and_the_targets_have_its_area():
    plain, cut = (FashionMnist(FashionMnistOptions(**PLAIN, **more)).train_batches(0, 256) for more in ({}, CUTMIX))
    areas = []
    for batch, mixed in zip(islice(plain, 4), cut, strict=False):
        own = mixed.inputs == batch.inputs
        assert (own | (mixed.inputs == batch.inputs.roll(1, 0))).all()
        areas.append(float((~own).any(0).double().mean()))
        onehot = torch.nn.functional.one_hot(batch.targets, 10).float()
        expected = (1 - areas[-1]) * onehot + areas[-1] * onehot.roll(1, 0)
        assert torch.allclose(mixed.targets, expected, atol=0.03)
    assert len(set(areas)) == 4


def test_each_step_draws_its_own_proportion_of_mixup():
    batches = FashionMnist(FashionMnistOptions(mixup=1.0)).train_batches(0, 16)
    assert len({round(float(next(batches).targets[0].max()), 6) for _ in range(8)}) > 4


def test_smoothing_and_soft_targets_equal_the_formula():
    task = FashionMnist(FashionMnistOptions(label_smoothing=0.2))
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([1, 0, 9])
    wanted = 0.0
    for row, label in zip(logits.tolist(), target.tolist(), strict=True):
        total = math.log(sum(map(math.exp, row)))
        wanted += sum((total - value) * (0.8 * (k == label) + 0.02) for k, value in enumerate(row)) / 3
    batch = Batch(torch.zeros(3, 1), target)
    soft = Batch(torch.zeros(3, 1), torch.nn.functional.one_hot(target, 10).float())
    assert task.loss(logits, batch).item() == pytest.approx(wanted, rel=1e-5)
    assert task.loss(logits, soft).item() == pytest.approx(wanted, rel=1e-5)


def test_metrics_are_unsmoothed_even_if_training_is_smoothed():
    task = FashionMnist(FashionMnistOptions(label_smoothing=0.3))
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 10)), rng.integers(0, 10, 50)
    found = task.summarise(task.measure(torch.from_numpy(logits), Batch(torch.zeros(50, 1), torch.from_numpy(labels))))
    order = np.argsort(-logits, axis=1)
    assert found["top1"] == pytest.approx(np.mean(order[:, 0] == labels))
    assert found["top5"] == pytest.approx(np.mean([label in row[:5] for label, row in zip(labels, order, strict=True)]))
    nats = [math.log(np.exp(row).sum()) - row[label] for label, row in zip(labels, logits, strict=True)]
    assert found["loss"] == pytest.approx(np.mean(nats), rel=1e-6)


def test_a_patch_that_does_not_divide_the_side_is_refused_with_the_divisors():
    with pytest.raises(ValidationError, match=r"patch 5 .* 1, 2, 4, 7, 14, 28"):
        FashionMnistOptions(patch=5)
    with pytest.raises(ValidationError):
        ImageOptions(label_smoothing=1.0)
