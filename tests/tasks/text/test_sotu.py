"""sotu: the split by address; every byte is scored once and sees only bytes of its own address."""

from __future__ import annotations

import bz2
import math

import pytest
import torch

import tasks
from tasks.base import Batch
from tasks.text.scores import IGNORED
from tasks.text.sotu import BOUNDARY, Sotu, SotuOptions


@pytest.fixture
def sotu(embedded_tasks):
    return embedded_tasks["sotu"]


def content(sotu, split):
    return [address.tobytes() for address in sotu.addresses[split]]


def test_the_splits_are_210_12_and_11_addresses_of_the_recorded_size(sotu):
    info = sotu.info()
    assert info.extra["addresses"] == {"train": 210, "valid": 12, "test": 11}
    assert sum(info.splits.values()) == 10_761_413
    assert info.embedded
    assert info.unit == "bytes"


def test_no_address_is_in_two_splits_and_none_contains_the_boundary_byte(sotu):
    parts = [set(content(sotu, split)) for split in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 233
    assert not any(bytes([BOUNDARY]) in address for part in parts for address in part)


def test_bz2_compresses_the_test_text_to_1_97_bits_per_byte(sotu):
    text = b"".join(content(sotu, "test"))
    assert 8 * len(bz2.compress(text)) / len(text) == pytest.approx(1.97, abs=0.005)


@pytest.mark.parametrize("length", [1, 100, 256])
def test_every_byte_of_the_test_addresses_is_a_target_exactly_once_in_order(sotu, length):
    task = Sotu(SotuOptions(length=length)) if length != 256 else sotu
    targets = torch.cat([batch.targets for batch in task.eval_batches("test", 64)]).flatten()
    assert bytes(targets[targets != IGNORED].tolist()) == b"".join(content(sotu, "test"))


def test_each_byte_sees_the_byte_before_it_and_the_first_sees_the_boundary(sotu):
    batches = list(sotu.eval_batches("test", 50))
    inputs = torch.cat([b.inputs for b in batches])
    targets = torch.cat([b.targets for b in batches])
    firsts = (inputs[:, 0] == BOUNDARY).nonzero().flatten().tolist()
    assert len(firsts) == 11
    for start, end, address in zip(firsts, [*firsts[1:], len(inputs)], content(sotu, "test"), strict=True):
        seen = inputs[start:end].flatten()[: len(address)].tolist()
        assert bytes(seen) == bytes([BOUNDARY]) + address[:-1]
        assert (targets[start:end].flatten()[len(address) :] == IGNORED).all()


def test_limited_validation_is_an_evenly_spread_subset():
    full = Sotu(SotuOptions(valid_limit=0, length=128))
    some = Sotu(SotuOptions(valid_limit=100, length=128))
    all_windows = torch.cat([b.targets for b in full.eval_batches("valid", 256)])
    windows = torch.cat([b.targets for b in some.eval_batches("valid", 256)])
    assert some.n_examples("valid") == len(windows) == 100
    places = [int((all_windows == window).all(1).nonzero()[0]) for window in windows]
    gaps = torch.tensor(places).diff()
    assert set(gaps.tolist()) <= {len(all_windows) // 100, len(all_windows) // 100 + 1}
    assert len(all_windows) == full.n_examples("valid")


def test_the_default_tests_every_byte(sotu):
    assert sotu.options.test_limit == 0
    assert sum(int((b.targets != IGNORED).sum()) for b in sotu.eval_batches("test", 128)) == sotu.info().splits["test"]


def test_training_windows_come_from_the_training_text_with_targets_one_byte_later(sotu):
    text = b"".join(bytes([BOUNDARY]) + address for address in content(sotu, "train"))
    batch = next(sotu.train_batches(0, 8))
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        assert bytes([*inputs.tolist(), int(targets[-1])]) in text
        assert torch.equal(inputs[1:], targets[:-1])


def test_bits_and_perplexity_equal_a_loop_over_single_bytes_without_the_padding(sotu):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 256, (3, 16), generator=generator)
    targets[1, 5:] = IGNORED
    logits = torch.randn(3, 16, 256, generator=generator, dtype=torch.float64)
    nats = [
        math.log(sum(map(math.exp, row))) - row[wanted]
        for row, wanted in zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(), strict=True)
        if wanted != IGNORED
    ]
    mean = sum(nats) / len(nats)
    found = sotu.summarise(sotu.measure(logits, Batch(targets, targets)))
    assert len(nats) == 37
    assert found == pytest.approx(
        {"bits_per_byte": mean / math.log(2), "perplexity": math.exp(mean), "loss": mean}, rel=1e-6
    )
    assert sotu.loss(logits, Batch(targets, targets)).item() == pytest.approx(mean, rel=1e-6)


def test_a_uniform_model_costs_eight_bits(sotu):
    batch = next(sotu.eval_batches("test", 4))
    sums = sotu.measure(torch.zeros(*batch.inputs.shape, 256), batch)
    assert sotu.summarise(sums)["bits_per_byte"] == pytest.approx(8.0, rel=1e-6)
    assert tasks.get("sotu") is Sotu
