"""Layers of flash-linear-attention: without the library, or without a GPU, an error names what is missing."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError

import pytest

from backbones.mixers.fla import mixer

TASK = ("--task", "sotu", "--mixer", "fla/gla")


@pytest.mark.parametrize("arguments", [("check", "fla/gla"), ("budget", *TASK), ("run", *TASK)], ids=lambda a: a[0])
def test_layers_of_a_missing_library_report_what_to_install(suite, runs, monkeypatch, arguments):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mixer, "version", missing)
    ended = suite(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "flash-linear-attention" in ended.err
    assert "pip install 'mixer-suite[fla]'" in ended.err
    assert not runs.exists()
    row = next(row for row in json.loads(suite("list", "mixers", "--json").out) if row["name"] == "fla/gla")
    assert (row["available"], row["causal"], row["bidirectional"], row["domains"]) == (
        False,
        True,
        False,
        ["language", "recall"],
    )
    assert "mixer-suite[fla]" in row["reason"]


@pytest.mark.parametrize("arguments", [("check", "fla/gla"), ("run", *TASK, "--device", "cpu")], ids=lambda a: a[0])
def test_layers_that_need_a_gpu_are_refused_before_anything_starts(suite, runs, monkeypatch, arguments):
    monkeypatch.setattr(mixer, "version", lambda name: "0.6.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = suite(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "'fla/gla'" in ended.err
    assert "GPU" in ended.err
    assert "'cpu'" in ended.err
    assert not runs.exists()
