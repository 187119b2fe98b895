"""What is suggested for a wrong name: in other capitals, by another word for it, or with a typing error."""

from __future__ import annotations

from typing import get_args

import pytest
import typer

from backbones.mixers import errors as mixer_errors
from backbones.mixers import registry
from suite.cli import app, unknown
from suite.config.recipe import SCALES
from suite.config.run_config import ModelConfig, TrainConfig
from suite.errors import OTHER_WORDS, nearest
from tasks import registry as task_registry
from tasks.base import Domain
from tests.suite.cli.test_interface import COMMANDS

SOTU = ("show", "--task", "sotu")


@pytest.mark.parametrize("given", sorted(mixer_errors.OTHER_WORDS))
def test_every_synonym_for_a_mixer_leads_to_a_registered_one(given):
    names = registry.names()
    assert any(name in names for name in mixer_errors.OTHER_WORDS[given])
    assert given not in names
    for spelling in (given, given.upper(), given.replace("-", "_")):
        assert "did you mean" in mixer_errors.did_you_mean(spelling, names)


def test_a_typing_error_in_a_synonym_leads_to_what_it_means():
    assert mixer_errors.did_you_mean("atention", registry.names()) == "; did you mean 'softmax'?"
    assert mixer_errors.did_you_mean("retenton", registry.names()) == "; did you mean 'retention'?"


def test_every_synonym_on_the_command_line_leads_to_a_name_that_exists():
    options = {name for options in COMMANDS.values() for name in options}
    known = {"cuda", "task", "mixer", "seed", "length", *ModelConfig.model_fields, *TrainConfig.model_fields}
    known |= {*SCALES, *get_args(Domain)}
    assert {name for names in OTHER_WORDS.values() for name in names} <= known
    for text in unknown.ELSEWHERE.values():
        words = [word for word in text.split() if word.startswith("--")]
        assert set(words) <= options
    tasks_and_domains = {*task_registry.names(), *get_args(Domain)}
    assert set(task_registry._OTHER_WORDS.values()) <= tasks_and_domains


@pytest.mark.parametrize(
    ("given", "allowed", "expected"),
    [
        ("Even", ("even", "odd"), "even"),
        ("GPU", ("auto", "cpu", "cuda"), "cuda"),
        ("learning-rate", ("lr", "steps"), "lr"),
        ("stpes", ("lr", "steps"), "steps"),
        ("lerning_rate", ("lr", "early_rate"), "lr"),  # a typing error in another word is nearer than a name
        ("nothing like it", ("lr", "steps"), ""),
    ],
)
def test_the_nearest_name(given, allowed, expected):
    assert nearest(given, allowed) == expected


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((*SOTU, "--mixer", "Attention"), "'softmax'"),
        ((*SOTU, "--mixer", "transformer"), "'softmax'"),
        ((*SOTU, "--mixer", "FEM"), "'fem'"),
        ((*SOTU, "--mixer", "mamba"), "'mamba2'"),
        ((*SOTU, "--mixer", "s6"), "'ssm'"),
        ((*SOTU, "--mixer", "dlinear"), "'baseline/dlinear'"),
        (("show", "--mixer", "fem", "--task", "Fashion-MNIST"), "'fashion-mnist'"),
        (("show", "--mixer", "fem", "--task", "fmnist"), "'fashion-mnist'"),
        ((*SOTU, "--mixer", "fem", "--scale", "Board"), "'board'"),
        ((*SOTU, "--mixer", "fem", "--set", "learning_rate=1"), "'lr'"),
        ((*SOTU, "--mixer", "fem", "--set", "LR=1"), "'lr'"),
        (("run", "--task", "sotu", "--mixer", "fem", "--device", "gpu"), "'cuda'"),
        (("run", "--lr", "1e-3"), "--set lr=VALUE"),
        (("run", "--batch-size", "8"), "--set batch_size=VALUE"),
        (("sweep", "--lr", "1e-3"), "--set lr=VALUE"),
        (("run", "--gpu"), "--device cuda"),
        (("run", "--model", "fem"), "--mixer"),
        (("run", "--seeds", "8"), "suite sweep --seeds"),
        (("leaderboard", "--latx"), "--latex"),
        (("leaderboard", "--domain", "text"), "'language'"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_right_one(suite, arguments, part):
    ended = suite(*arguments)
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert f"did you mean {part}" in ended.err


@pytest.mark.parametrize(
    "command", ["show --task sotu --mixer", "budget --task sotu --mixer", "show --mixer fem --task", "check"]
)
def test_a_file_without_a_class_lists_its_classes_and_is_not_executed(suite, tmp_path, command):
    file, trace = tmp_path / "mine.py", tmp_path / "executed"
    file.write_text(
        f"open({str(trace)!r}, 'w')\n"
        "class MineConfig(base.MixerConfig): ...\n"
        "class Mine(base.Mixer): ...\nclass Other(Mine): ...\n"
    )
    ended = suite(*command.split(), str(file))
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert f"{file}:Mine, {file}:Other" in ended.err
    assert not trace.exists()
    file.write_text("not Python (")
    assert "has none" in suite(*command.split(), str(file)).err
    assert "does not exist" in suite(*command.split(), str(tmp_path / "none.py")).err


@pytest.mark.parametrize("command", ["", *COMMANDS, "list", "data"])
def test_h_is_help_everywhere(suite, command):
    short, long = (suite(*command.split(), flag) for flag in ("-h", "--help"))
    assert (short.code, short.err) == (0, "")
    assert short.out == long.out
    assert "Usage: suite" in short.out


def test_the_version_names_pytorch_and_the_kernels(suite, monkeypatch):
    ended = suite("--version")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    assert all(part in ended.out for part in ("mixer-suite 0.", "torch 2.", "compiled kernels "))
    monkeypatch.setenv("SUITE_COMPILED_KERNELS", "off")
    assert "compiled kernels off" in suite("--version").out
    assert typer.main.get_command(app.app).params
