"""Runs on tokenised text: trained, recorded, resumed, written with and scored, also where the data are gone."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from suite.boards import board
from suite.config.run_config import RunConfig
from suite.language.generate import load_language_model
from suite.language.scoring import Scorer, windows
from suite.models.resolve import resolve
from suite.models.written import from_canonical
from suite.records import record, runs_folder
from suite.records.collection import read_all
from suite.records.schema import Record
from suite.training.run import start
from tasks.base import DataError
from tasks.text.tokenizers import train_bpe
from tests.suite.tiny import SHAPE
from tests.tasks.text.corpus_files import addresses, write_text

LENGTH = 32
BPE = ("tokenizer=bpe", "vocab=300")


@pytest.fixture(autouse=True)
def _untracked(monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")


def write_speeches(root):
    """A folder of text: three addresses by split."""
    for name, text in zip(("train", "valid", "test"), addresses(), strict=False):
        write_text(root / "speeches" / f"{name}.txt", text)
    return root / "speeches"


@pytest.fixture
def folder(tmp_path):
    return write_speeches(tmp_path)


def short(*more: str) -> list[str]:
    return [*SHAPE, f"length={LENGTH}", "valid_limit=16", "test_limit=16", "steps=4", "evals=2", *more]


def config_of(*more: str, mixer: str = "softmax", seed: int = 0):
    return resolve(task="text", mixer=mixer, scale="board", seed=seed, sets=short(*more))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a tiny run on BPE tokens, whose data and cache are gone."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SUITE_HOME", root / "runs"), ("SUITE_CACHE", root / "cache"), ("SUITE_TRACKING", "off")):
            patch.setenv(name, str(value))
        outcome = start(config_of(*BPE), data_dir=write_speeches(root), device="cpu")
    assert outcome.record.status == "finished"
    shutil.rmtree(root / "speeches")
    shutil.rmtree(root / "cache")
    return str(root / "runs" / outcome.record.id)


@pytest.fixture
def scorer(trained):
    model, task = load_language_model(trained, torch.device("cpu"))
    return Scorer(model.double(), task, torch.device("cpu"), batch_size=3)


def one_by_one(scorer, ids: list[int]) -> list[tuple[float, bool]]:
    """For each token from the second on: its log-likelihood given all tokens before it, and whether it is the most
    likely one. One forward pass per token.
    """
    made = []
    for at in range(1, len(ids)):
        logits = scorer.model(torch.tensor([ids[:at]]))[0, -1].log_softmax(-1)
        made.append((logits[ids[at]].item(), logits.argmax().item() == ids[at]))
    return made


@pytest.mark.slow
def test_bits_per_byte_come_from_the_nats_per_token_of_bytes_and_bpe(folder, suite):
    for options, vocab in (((), 257), (BPE, 300)):
        sets = [part for value in short(*options) for part in ("--set", value)]
        asked = ("--task", "text", "--mixer", "fem", "--scale", "board", "--device", "cpu", "--data-dir", str(folder))
        ended = suite("run", *asked, *sets, "--json")
        made = json.loads(ended.out)
        assert ended.code == 0, ended.err
        test, details = made["metrics"]["test"], made["data"]["details"]
        assert details["vocabulary"] == vocab
        assert test["perplexity"] == pytest.approx(math.exp(test["loss"]))
        if vocab == 257:  # every token is a byte but the end of the text
            assert test["bits_per_byte"] == pytest.approx(test["loss"] / math.log(2), rel=0.01)
        else:
            assert test["bits_per_byte"] < test["loss"] / math.log(2)


def test_prepare_reports_what_it_will_write_and_where_before_writing(folder, suite):
    ended = suite("data", "prepare", "text", "--data-dir", str(folder), "--json")
    assert json.loads(ended.out)["status"] == "ready"
    assert ended.err.startswith("text: about 0.1 MB of tokens ")
    assert suite("data", "prepare", "text", "--data-dir", str(folder), "--json").err == ""


def test_info_on_unprepared_data_writes_nothing(folder, suite):
    (folder / "train.txt").write_text("Never seen before. " * 500, "utf-8")
    for options in ((), ("--set", "tokenizer=bpe", "--set", "vocab=259")):
        info = json.loads(suite("data", "info", "text", "--data-dir", str(folder), *options, "--json").out)
        assert info["fingerprint"] == ""
        assert info["notes"][0].startswith("not prepared yet")


def test_a_run_writes_text_after_its_data_are_gone(trained, suite):
    written = json.loads(
        suite("generate", trained, "--prompt", "Fellow-citizens of the", "--tokens", "5", "--seed", "3", "--json").out
    )
    assert written["text"]


def test_a_tokenizer_file_counts_in_the_identity_by_its_content(folder, tmp_path):
    definition = train_bpe(addresses()[:2], 300)
    paths = [tmp_path / "a.json", tmp_path / "elsewhere" / "b.json", tmp_path / "other.json"]
    for path, content in zip(paths, (definition, definition, train_bpe(addresses()[:2], 301)), strict=True):
        write_text(path, content)
    one, moved, other = (config_of(f"tokenizer={path}") for path in paths)
    assert (one.identity, one.group) == (moved.identity, moved.group)
    assert other.identity != one.identity
    assert one.data.vocab == 300  # its 299 ids and the end of a text
    made = start(one, data_dir=folder, device="cpu").record
    assert made.status == "finished"
    paths[0].unlink()
    again = resumable(made)
    assert again.identity == made.identity
    model, task = load_language_model(made.id, torch.device("cpu"))
    assert task.decode(task.encode("Fellow-citizens")) == b"Fellow-citizens"
    assert model.head.out_features == 300


def resumable(made: Record) -> RunConfig:
    """The config in the run's folder, which has the paths that a record leaves out."""
    return from_canonical(runs_folder.read_run(runs_folder.find_run(made.id))["config"])


def test_a_changed_tokenizer_file_trains_nothing_and_old_records_keep_their_board(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_text(tmp_path / "a.json", train_bpe(addresses()[:2], 300))
    made = start(config_of("tokenizer=a.json"), data_dir=folder, device="cpu").record
    write_text(path, train_bpe(addresses()[:2], 301))
    again = resumable(made)
    assert again.identity == made.identity
    assert [row.first.id for shown in board.boards(read_all().records) for row in shown.rows] == [made.id]
    with pytest.raises(DataError, match=r"'a\.json' has changed.*original file"):
        start(again, data_dir=folder, device="cpu")
    grown = {**again.canonical(), "data": {**again.canonical()["data"], "vocab": 299}}
    write_text(path, train_bpe(addresses()[:2], 300))
    with pytest.raises(DataError, match=r"vocab=299 .*'a\.json'.* 300 ids.*--set vocab=0"):
        start(from_canonical(grown), data_dir=folder, device="cpu")


def test_the_likelihood_of_a_continuation_is_that_of_its_tokens_one_by_one(scorer):
    pairs = [("Fellow-citizens", " of the Senate"), ("", "The"), ("I lay before you ", "the result"), ("We", "")]
    for (context, continuation), (total, greedy) in zip(pairs, scorer.continuations(pairs), strict=True):
        ids = scorer.task.encode(context + continuation)
        assert len(ids) <= LENGTH + 1
        scored = one_by_one(scorer, ids)[len(scorer.task.encode(context.rstrip())) - 1 :]
        assert total == pytest.approx(
            sum(nats for nats, _ in scored), abs=1e-5
        )  # the model's answer is rounded to single precision
        assert greedy == all(is_best for _, is_best in scored)


def test_only_the_most_likely_continuation_is_greedy(scorer):
    written = scorer.generate("Fellow", (), 3, 0.0)
    text = scorer.task.decode(scorer.task.encode("Fellow" + written)).decode()
    assert text == "Fellow" + written
    ids = scorer.task.encode("Fellow")
    best = scorer.model(torch.tensor([ids]))[0, -1].argmax().item()
    window = next(windows(0, [*ids, best], len(ids), LENGTH))
    other = next(windows(1, [*ids, (best + 1) % 300], len(ids), LENGTH))
    (_, greedy), (_, not_greedy) = scorer._score([window, other], 2)
    assert (greedy, not_greedy) == (True, False)


def test_each_token_of_a_long_text_is_scored_once_in_windows_of_full_context(scorer):
    text = addresses()[3][:400]
    ids = scorer.task.encode(text)
    made = list(windows(0, ids, 1, LENGTH))
    assert [i for w in made for i in w.targets] == ids[1:]
    assert all(len(w.inputs) == LENGTH for w in made)
    assert all(w.inputs[-len(w.targets) + 1 :] == w.targets[:-1] for w in made if len(w.targets) > 1)
    expected = 0.0
    for w in made:
        logits = scorer.model(torch.tensor([w.inputs]))[0, -len(w.targets) :].log_softmax(-1)
        expected += sum(logits[i, target].item() for i, target in enumerate(w.targets))
    assert scorer.texts([text])[0] == pytest.approx(expected, rel=1e-6)
    assert scorer.texts(["short", text, ""])[1:] == [pytest.approx(expected, rel=1e-6), 0.0]


def test_generation_ends_before_the_first_stop(scorer):
    whole = scorer.generate("The ", (), 24, 1.0, seed=1)
    stop = whole[len(whole) // 2]
    assert scorer.generate("The ", ("never there", stop), 24, 1.0, seed=1) == whole[: whole.index(stop)]


@pytest.fixture
def harness(monkeypatch):
    """The adapter with the library where it is installed, otherwise with the part of its interface that is used."""
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        names = ("lm_eval", "lm_eval.api", "lm_eval.api.instance", "lm_eval.api.model", "lm_eval.tasks")
        modules: dict[str, Any] = {name: ModuleType(name) for name in names}
        modules["lm_eval.api.model"].LM = type("LM", (), {})
        modules["lm_eval.api.instance"].Instance = SimpleNamespace
        modules["lm_eval.tasks"].TaskManager = SimpleNamespace
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
    from suite.language import lm_eval as adapter

    yield adapter
    sys.modules.pop("suite.language.lm_eval")


def test_the_harness_gets_the_scorers_results(harness, scorer):
    model = harness.SuiteLM(scorer)

    def ask(*arguments: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(args=arguments)]

    assert model.loglikelihood(ask("Fellow", "-citizens")) == scorer.continuations([("Fellow", "-citizens")])
    assert model.loglikelihood_rolling(ask("Fellow-citizens")) == scorer.texts(["Fellow-citizens"])
    asked = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False, "temperature": 0.7}
    assert model.generate_until(ask("Fellow", asked)) == [scorer.generate("Fellow", ["\n"], 6, 0.0)]
    assert model.generate_until(ask("Fellow", {"until": "\n", "max_gen_toks": 6, "temperature": 0.7})) == [
        scorer.generate("Fellow", ["\n"], 6, 0.7)
    ]


def test_without_the_harness_the_command_is_one_line(suite, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    ended = suite("lm-eval", "nothing", "--tasks", "piqa")
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert "lm-evaluation-harness is not installed" in ended.err


def test_records_of_text_hold_no_path_of_the_machine(trained):
    assert str(Path(trained).parents[1]) not in (Path(trained) / record.NAME).read_text()
