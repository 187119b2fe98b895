"""`suite plot`: training curves of runs, by configuration."""

from __future__ import annotations

import json

import pytest

from suite.records import record
from tests.suite.tiny import made_record


@pytest.fixture
def some(runs):
    for mixer, seeds in (("softmax", (0, 1)), ("fem", (0,))):
        for seed in seeds:
            made = made_record(mixer, 0.5, seed=seed)
            (runs / made.id).mkdir(parents=True)
            record.write(runs / made.id, made)


def test_the_runs_of_a_configuration_are_one_curve(suite, some, tmp_path):
    path = tmp_path / "new" / "curves.svg"
    ended = suite("plot", "--task", "fashion-mnist", "--output", str(path), "--json")
    assert json.loads(ended.out)["curves"] == {"fem": ["fem-0"], "softmax": ["softmax-0", "softmax-1"]}
    text = path.read_text("utf-8")
    assert all(word in text for word in ("fem", "softmax", "training loss", "step"))


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_suffix_is_the_format(suite, some, tmp_path, suffix, start):
    path = tmp_path / f"curves.{suffix}"
    ended = suite("plot", "--task", "fashion-mnist", "--mixer", "fem", "--output", str(path))
    assert (ended.code, ended.out) == (0, f"{path}: mixers and their seeds: fem (0)\n")
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "name runs, or a task with --task"),
        (("fem-0", "--task", "fashion-mnist"), "one of both"),
        (("fem-0", "--mixer", "fem"), "give --task, not runs"),
        (("--task", "fashion-mnist", "--mixer", "softmx"), "did you mean 'softmax'"),
        (("--task", "sotu"), "no run with a loss trace"),
        (("--task", "fashion-mnist", "--output", "curves.gif"), "allowed: .svg, .png, .pdf"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(suite, some, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    ended = suite("plot", *words)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert named in ended.err
    assert not list(tmp_path.glob("*.svg"))
