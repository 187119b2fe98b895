"""Every size has a bound: a value that is too large, too long or too deep is refused in seconds, in one short line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.config.recipe import read_recipe
from suite.errors import UserError
from suite.models import memory
from suite.safe_text import MESSAGE, shortened
from tasks.errors import DataError
from tasks.series.csv_table import read_series_csv
from tests.suite.tiny import certify, tiny_config

BUDGET = ["budget", "--task", "sotu", "--mixer", "softmax"]
SECONDS = 20  # on a busy machine; a second alone


#: Command lines with a value out of all bounds, and what the line must name.
TOO_LARGE = {
    "dim": ([*BUDGET, "--set", "dim=100000000"], "model.dim"),
    "depth": ([*BUDGET, "--set", "depth=1000000"], "model.depth"),
    "heads": ([*BUDGET, "--set", "model.heads=1000000000"], "model.heads"),
    "steps": ([*BUDGET, "--set", "steps=1" + "0" * 30], "train.steps"),
    "digits": ([*BUDGET, "--set", "steps=" + "9" * 6000], "train.steps"),
    "length": ([*BUDGET, "--set", "length=" + "9" * 40], "data.length"),
    "hybrid": ([*BUDGET, "--hybrid", "9" * 6000], "hybrid"),
    "option": ([*BUDGET, "--set", "x" * 60_000 + "=1"], "unknown option"),
    "run id": (["show", "r" * 5000], "no run"),
    "resume": (["run", "--resume", "r" * 5000], "no run"),
    "folder": (["data", "info", "text", "--data-dir", "/" + "d" * 5000], "ddd"),
    "mixer": (["budget", "--task", "sotu", "--mixer", "m" * 60_000], "unknown mixer"),
    "mixer file": (["budget", "--task", "sotu", "--mixer", "m" * 5000 + ".py:X"], "mmm"),
    "task": (["budget", "--task", "t" * 60_000, "--mixer", "fem"], "unknown task"),
    "recipe": (["budget", "--recipe", "r" * 5000], "recipe"),
    "null": (["show", "a\x00b"], "no run"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_value_out_of_bounds_is_one_short_line_at_once(suite, name):
    arguments, named = TOO_LARGE[name]
    began = time.perf_counter()
    ended = suite(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err[:500]
    assert named in ended.err
    assert len(ended.err) <= MESSAGE + 20
    assert time.perf_counter() - began < SECONDS


#: Recipes that cost a parser everything.
RECIPES = {
    "nested arrays": "[train]\nlr = " + "[" * 60_000,
    "nested arrays, one per line": "[train]\nlr = [\n" + "[\n" * 20_000,
    "a key of many parts": ".".join(["a"] * 60_000) + " = 1",
    "keys of many parts": "\n".join(".".join(f"k{n}{i}" for i in range(300)) + " = 1" for n in range(30)),
    "an integer of 6,000 digits": "seed = " + "9" * 6000,
    "an integer of 6,000 digits in a section": "[train]\nsteps = 0x" + "f" * 1900,
    "a large file": "# comment\n" * 10**6,
    "a section that is none": "mixer = 3",
    "a name that is none": "task = 'sotu'\n[mixer]\nname = 3",
    "a date": "task = 'sotu'\nmixer = 'fem'\nseed = 2020-01-01",
    "a table as a value": "task = 'sotu'\nmixer = 'fem'\n[train.lr.x]\ny = 1",
    "not UTF-8": "\udcff",
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_costs_everything_is_refused_at_once(suite, tmp_path, name):
    path = tmp_path / "recipe.toml"
    path.write_bytes(RECIPES[name].encode("utf-8", "surrogateescape"))
    began = time.perf_counter()
    ended = suite("budget", "--task", "sotu", "--mixer", "fem", "--recipe", str(path))
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err[:500]
    assert len(ended.err) <= MESSAGE + 20
    assert time.perf_counter() - began < SECONDS


def test_a_recipe_of_ordinary_size_is_read(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("task = 'sotu'\nseed = 3\n[train]\nlr = 1e-3\n" + "# a comment\n" * 1000)
    assert read_recipe(path) == {"task": "sotu", "seed": 3, "train": {"lr": 1e-3}}


def test_a_huge_cell_is_quoted_in_a_short_line(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("time,a\n2020-01-01,1\n2020-01-02," + "x" * 10**6 + "\n")
    with pytest.raises(DataError) as raised:
        read_series_csv(path)
    assert len(shortened(str(raised.value))) <= MESSAGE


def test_messages_keep_what_is_not_quoted():
    assert shortened("a 'b' c") == "a 'b' c"
    apostrophe = f"fla's layer cannot be built: {'word ' * 30}: pip install 'mixer-suite[fla]'"
    assert shortened(apostrophe) == apostrophe
    text = shortened(f"file 'x.csv': cell '{'y' * 1000}' in column 'z' is no number")
    assert text.startswith("file 'x.csv': cell 'yyy")
    assert text.endswith("y' in column 'z' is no number")
    assert len(text) < 160


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_built(monkeypatch):
    config = tiny_config("sotu", "softmax")
    device = torch.device("cpu")
    made = certify(config)
    memory.require_memory(config, made, device)
    monkeypatch.setattr(memory, "_total", lambda _: 16 * made.total_parameters)
    with pytest.raises(UserError, match=r"at least .* GiB .*lower model.dim, .*train.batch_size"):
        memory.require_memory(config, made, device)


def test_each_rank_needs_memory_of_its_own(monkeypatch):
    config = tiny_config("sotu", "softmax")
    made = certify(config)
    least = 16 * made.total_parameters
    activations = 4 * config.train.batch_size * made.length * made.dim * made.depth

    def fits(there: float, device: str = "cpu", **ranks: Any) -> bool:
        monkeypatch.setattr(memory, "_total", lambda _: there)
        try:
            memory.require_memory(config, made, torch.device(device), **ranks)
        except UserError as refused:
            return "for each of 2 processes" not in str(refused)
        return True

    two: dict[str, Any] = {"processes": 2, "here": 2}
    assert fits(2 * least + activations, **two)  # on a CPU, both have the same memory
    assert not fits(2 * least + activations - 1, **two)
    assert fits(least + activations / 2, "cuda", **two)  # each GPU has its own
    assert not fits(least + activations / 2 - 1, "cuda", **two)
    sharded = least / 2 + 4 * made.total_parameters + activations / 2  # its part, and all weights for a validation
    assert fits(sharded, "cuda", **two, sharded=True)
    assert not fits(sharded - 1, "cuda", **two, sharded=True)


ERRORS = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
)


@pytest.mark.parametrize("error", ERRORS)
def test_a_run_without_memory_reports_what_to_lower(suite, monkeypatch, error):
    def fails(*_: object) -> None:
        raise error

    from tests.suite.tiny import tiny_arguments

    monkeypatch.setattr("suite.training.execution.build_model", fails)
    ended = suite(*tiny_arguments("sotu"))
    assert ended.code == 1
    assert "out of memory: lower model.dim" in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_other_errors_are_not_of_memory():
    assert memory.out_of_memory(RuntimeError("shapes differ")) == ""
    assert memory.out_of_memory(ValueError("out of memory")) == ""
    assert Path(memory.__file__).name == "memory.py"
