"""Batches and scores over a tokenised corpus: epochs of windows, every token scored once, bits per byte, words."""

from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch

from tasks.base import Batch, Split
from tasks.randomness import permuted
from tasks.text.own_text import OwnText, TextOptions
from tasks.text.scores import IGNORED
from tasks.text.wikitext import WikiText2, WikiTextOptions
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import addresses, write_text

LENGTH = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for name, text in zip(
        ("train", "valid", "test"), (addresses()[5][:9000], "A é\n" * 300, addresses()[7]), strict=True
    ):
        write_text(root / f"{name}.txt", text)
    return root


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def task(request, folder):
    vocab = 300 if request.param == "bpe" else 0
    loaded = OwnText(TextOptions(tokenizer=request.param, length=LENGTH, valid_limit=0, vocab=vocab), folder)
    loaded.load()
    return loaded


@pytest.mark.parametrize("task", ["bpe"], indirect=True)
def test_a_tokenizer_that_turns_out_to_lose_text_is_refused(task, folder, tmp_path):
    definition = json.loads(task.tokenizer.definition)
    definition["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "WhitespaceSplit"}, definition["pre_tokenizer"]],
    }
    (tmp_path / "mine.json").write_text(json.dumps(definition), "utf-8")
    message = error_of(OwnText(TextOptions(tokenizer=str(tmp_path / "mine.json"), length=LENGTH), folder).load)
    assert "tokenizer" in message
    assert "use bytes, bpe" in message


def stream(task, split: str) -> list[int]:
    """The tokens of a split, from its text."""
    text = next(task.data_dir.glob(f"{split}.txt")).read_text("utf-8")
    return [*task.encode(text), task.tokenizer.end]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 65, 1000])
def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch(n):
    orders = [permuted(np.arange(n), n, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert sorted(order.tolist()) == list(range(n))
    assert permuted(np.array([n - 1]), n, 0, 0)[0] == orders[0][n - 1]
    if n >= 64:
        assert len({tuple(order) for order in orders}) == 3
        assert all(abs(np.corrcoef(order, np.arange(n))[0, 1]) < 4 / math.sqrt(n) for order in orders)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_evaluation_scores_every_token_of_a_split_exactly_once_in_order(task, split):
    batches = list(task.eval_batches(split, 7))
    targets = torch.cat([b.targets.flatten() for b in batches])
    assert targets[targets != IGNORED].tolist() == stream(task, split)[1:]
    before = torch.cat([b.inputs.flatten() for b in batches])[targets != IGNORED]
    assert before.tolist() == stream(task, split)[:-1]
    assert sum(b.size for b in batches) == task.n_examples(split)


def test_an_epoch_contains_every_window_once_from_a_drawn_first_position(task):
    tokens = stream(task, "train")
    per_epoch = (len(tokens) - LENGTH) // LENGTH
    phases = set()
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        starts = sorted(task.train_starts(seed, np.arange(epoch * per_epoch, (epoch + 1) * per_epoch)).tolist())
        assert np.diff(starts).tolist() == [LENGTH] * (per_epoch - 1)
        assert 0 <= starts[0] < LENGTH
        phases.add(starts[0])
    assert len(phases) > 1
    batch = next(itertools.islice(task.train_batches(3, 4), 2, None))
    starts = task.train_starts(3, np.arange(8, 12)).tolist()
    assert batch.inputs.tolist() == [tokens[s : s + LENGTH] for s in starts]
    assert batch.targets.tolist() == [tokens[s + 1 : s + 1 + LENGTH] for s in starts]


def test_bits_per_byte_is_the_nats_of_all_tokens_over_the_bytes_of_the_text(task):
    torch.manual_seed(0)
    table = torch.randn(task.spec.vocab, task.spec.vocab, dtype=torch.float64)
    sums: dict[str, tuple[float, float]] = {}
    for batch in task.eval_batches("valid", 5):
        for name, (total, count) in task.measure(table[batch.inputs], batch).items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + total, before[1] + count)
    tokens = stream(task, "valid")
    logs = table.float().double().log_softmax(-1)
    nats = -sum(logs[a, b].item() for a, b in itertools.pairwise(tokens))
    size = len((task.data_dir / "valid.txt").read_bytes())
    found = task.summarise(sums)
    assert size == 1500  # é is two bytes
    assert sums["bytes"][0] == size
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / (len(tokens) - 1)), rel=1e-5)


def test_limits_keep_windows_spread_over_the_split(folder):
    some = OwnText(TextOptions(length=16, valid_limit=5, test_limit=3), folder)
    every = OwnText(TextOptions(length=16, valid_limit=0), folder)
    counts: dict[Split, int] = {"valid": 5, "test": 3}
    for split, count in counts.items():
        chosen = torch.cat([b.inputs for b in some.eval_batches(split, 2)]).tolist()
        all_windows = torch.cat([b.inputs for b in every.eval_batches(split, 64)]).tolist()
        assert len(chosen) == some.n_examples(split) == count
        assert all(window in all_windows for window in chosen)
        assert chosen[0] != all_windows[0]  # spread over the split, not the first ones


@pytest.mark.parametrize("tokenizer", ["bytes", pytest.param("bpe", marks=pytest.mark.slow)])
def test_word_counts_do_not_depend_on_the_cut_into_windows(wikitext_folder, tokenizer):
    vocab = 300 if tokenizer == "bpe" else 0
    task = WikiText2(WikiTextOptions(tokenizer=tokenizer, length=37, test_limit=0, vocab=vocab), wikitext_folder)
    words, text = 0.0, b""
    for batch in task.eval_batches("test", 256):
        words += task.measure(torch.zeros(*batch.inputs.shape, 1).expand(-1, -1, task.spec.vocab), batch)["words"][0]
        text += task.decode(batch.targets[batch.targets != IGNORED].tolist())
    [documents] = [task.info().extra["documents"]["test"]]
    ends = sum(1 for _ in re.finditer(rb"\S+", text))
    assert words == ends > 40_000
    assert documents > 100
    found = task.summarise({"nats": (700.0, 100.0), "bytes": (400.0, 100.0), "words": (70.0, 100.0)})
    assert found["word_perplexity"] == pytest.approx(math.exp(10))
    assert [metric.name for metric in task.metrics][:3] == ["bits_per_byte", "perplexity", "word_perplexity"]


def test_a_text_shorter_than_two_windows_is_refused_in_one_line(folder):
    message = error_of(OwnText(TextOptions(length=5000), folder).load)
    assert "train part" in message
    assert "at least 10,000 " in message


def test_prepare_reports_token_files_that_changed_on_disk(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    OwnText(None, folder).prepare()
    [path] = tmp_path.glob("tokens/*/valid.bin")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    message = error_of(OwnText(None, folder).prepare)
    assert str(path.parent) in message
    assert "delete that folder" in message


def test_ids_beyond_the_vocabulary_decode_to_nothing(task):
    assert task.decode([*task.encode("ab"), task.spec.vocab - 1, 10**6]) == b"ab"


def test_padding_does_not_change_the_loss(task):
    batch = list(task.eval_batches("valid", 1000))[-1]
    assert (batch.targets == IGNORED).any()
    logits = torch.zeros(*batch.inputs.shape, task.spec.vocab)
    logits[batch.targets == IGNORED] = 1e4
    assert task.loss(logits, batch).item() == pytest.approx(math.log(task.spec.vocab), rel=1e-5)
    assert task.loss(logits, Batch(batch.inputs, batch.targets)).shape == ()
