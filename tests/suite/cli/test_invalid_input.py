"""Invalid input: one line on stderr with the given value and a suggestion, and exit code 2."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from suite.cli import app
from suite.records import runs_folder
from suite.training.run import start
from tests.suite.tiny import tiny_arguments, tiny_config

FEM = ("--task", "fashion-mnist", "--mixer", "fem")
POWER = ("--task", "household-power", "--mixer", "fem")
#: By name: the arguments, and what the message must contain: the given value, the allowed values or what to do.
INVALID: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "unknown command": (("rnu",), ["'rnu'", "Did you mean 'run'"]),
    "no command": ((), ["no command given"]),
    "missing argument": (("data", "info"), ["'TASK'"]),
    "unknown option": (("run", *FEM, "--stpes", "3"), ["--stpes", "--steps"]),
    "option without its value": (("run", "--task"), ["'--task'", "requires an argument"]),
    "no task": (("run", "--mixer", "fem"), ["--task NAME", "suite list tasks"]),
    "no mixer": (("run", "--task", "sotu"), ["--mixer NAME", "suite list mixers"]),
    "unknown task": (("run", "--task", "fashion-mnits", "--mixer", "fem"), ["'fashion-mnits'", "'fashion-mnist'"]),
    "unknown task, no similar name": (("run", "--task", "zzz", "--mixer", "fem"), ["'zzz'", "sotu, fashion-mnist"]),
    "unknown mixer": (("run", "--task", "sotu", "--mixer", "fme"), ["'fme'", "did you mean 'fem'"]),
    "missing mixer file": (
        ("run", "--task", "sotu", "--mixer", "mine.py:Mine"),
        ["'mine.py'", "path/to/file.py:Class"],
    ),
    "missing mixer file to enter": (
        ("enter", "mine.py:Mine", "--task", "sotu"),
        ["'mine.py'", "does not exist"],
    ),
    "a seed twice": (("sweep", "--task", "sotu", "--mixer", "fem", "--seeds", "0,0,1"), ["'0,0,1'", "seed 0", "twice"]),
    "unknown scale": (("run", *FEM, "--scale", "smal"), ["'smal'", "did you mean 'small'"]),
    "scale with a name of the recipe format": (("run", *FEM, "--scale", "common"), ["'common'", "board, quick"]),
    "unknown key": (("run", *FEM, "--set", "batch_sise=3"), ["'batch_sise'", "did you mean 'batch_size'"]),
    "unknown section": (("run", *FEM, "--set", "trian.lr=3"), ["'trian.lr'", "did you mean 'train'"]),
    "ambiguous key": (("run", *FEM, "--set", "heads=2"), ["heads", "model.heads", "mixer.heads"]),
    "no equals sign": (("run", *FEM, "--set", "lr"), ["'lr'", "--set lr=3e-3"]),
    "not a number": (("run", *FEM, "--set", "lr=fast"), ["train.lr", "'fast'", "number"]),
    "infinite": (("run", *FEM, "--set", "lr=inf"), ["train.lr", "'inf'", "finite number"]),
    "nan": (("run", *FEM, "--set", "weight_decay=nan"), ["train.weight_decay", "'nan'", "finite number"]),
    "out of range": (("run", *FEM, "--set", "dropout=1.5"), ["model.dropout", "'1.5'", "less than 1"]),
    "fraction of a step": (("run", *FEM, "--set", "steps=1.5"), ["train.steps", "'1.5'", "integer"]),
    "dim not divisible by heads": (("run", *FEM, "--set", "dim=65"), ["65", "multiple of heads"]),
    "patch": (("run", *FEM, "--set", "patch=5"), ["5", "1, 2, 4, 7, 14, 28"]),
    "not causal": (
        ("run", "--task", "sotu", "--mixer", "fem", "--set", "causal=false"),
        ["mixer.causal", "false", "true"],
    ),
    "no steps": (("run", *FEM, "--steps", "0"), ["'--steps'", "1"]),
    "steps in words": (("run", *FEM, "--steps", "many"), ["'--steps'", "integer"]),
    "negative seed": (("run", *FEM, "--seed", "-1"), ["seed", "-1", "0 to 2147483647"]),
    "large seed": (("run", *FEM, "--seed", "2147483648"), ["seed", "2147483648", "0 to 2147483647"]),
    "horizon of zero": (("run", *POWER, "--horizon", "0"), ["data.horizon", "0", "1"]),
    "horizon without forecasting": (("run", *FEM, "--horizon", "96"), ["--horizon", "'fashion-mnist'", "forecasting"]),
    "unknown track": (("run", *POWER, "--track", "fixed-95"), ["'fixed-95'", "'fixed-336' or 'fixed-96'"]),
    "track without forecasting": (("run", *FEM, "--track", "fixed-96"), ["--track", "'fashion-mnist'", "forecasting"]),
    "unknown hybrid": (("run", *FEM, "--hybrid", "evne"), ["'evne'", "did you mean 'even'"]),
    "skipping without a hybrid": (("run", *FEM, "--skip-variant-layers"), ["--skip-variant-layers", "--hybrid even"]),
    "generate from an unknown run": (("generate", "nothing"), ["'nothing'", "start one"]),
    "check of an unknown mixer": (("check", "fme"), ["'fme'", "did you mean 'fem'"]),
    "check of an unknown task": (("check", "sotuu"), ["'sotuu'", "did you mean 'sotu'"]),
    "check of a file that is not there": (("check", "none.py:Mine"), ["'none.py'", "does not exist"]),
    "check of a mixer with data": (("check", "fem", "--data-dir", "."), ["--data-dir", "'fem'"]),
    "check of a task with an unknown option": (
        ("check", "sotu", "--set", "lenght=4"),
        ["lenght", "did you mean 'length'"],
    ),
    "hybrid layer": (("run", *FEM, "--hybrid", "99"), ["'99'", "1 to 4"]),
    "missing recipe": (("run", *FEM, "--recipe", "none.toml"), ["'none.toml'", "does not exist"]),
    "recipe that is a folder": (("run", *FEM, "--recipe", "."), ["'.'", "directory"]),
    "missing device": (("run", *FEM, "--device", "cuda:7"), ["'cuda:7'", "auto, cpu"]),
    "unknown device": (("run", *FEM, "--device", "tpuu"), ["'tpuu'", "auto, cpu"]),
    "device without storage": (("run", *FEM, "--device", "meta"), ["'meta'", "auto, cpu"]),
    "unknown run": (("run", "--resume", "nothing"), ["'nothing'", "start one"]),
    "resume with options": (("run", "--resume", "nothing", "--steps", "3"), ["nothing", "drop the other options"]),
    "resume with a seed of zero": (
        ("run", "--resume", "nothing", "--seed", "0"),
        ["nothing", "drop the other options"],
    ),
    "run and task": (("show", "nothing", "--task", "sotu"), ["'nothing'", "not both"]),
    "show an unknown run": (("show", "nothing"), ["'nothing'", "start one"]),
    "upload an unknown run": (("upload", "nothing"), ["'nothing'", "start one"]),
    "no images": (
        ("run", "--task", "imagenet100", "--mixer", "fem"),
        ["imagenet100", "--data-dir DIR with train/ and val/"],
    ),
    "missing folder of images": (
        ("run", "--task", "imagenet100", "--mixer", "fem", "--data-dir", "none"),
        ["none", "--data-dir DIR with train/ and val/"],
    ),
    "a folder for embedded data": (("run", *FEM, "--data-dir", "."), ["fashion-mnist", "--data-dir ."]),
    "no text": (
        ("run", "--task", "text", "--mixer", "fem"),
        ["text", "--data-dir DIR with .txt, .jsonl or .parquet files"],
    ),
    "missing folder of text": (("data", "prepare", "text", "--data-dir", "none"), ["none", "--data-dir DIR with .txt"]),
    "a folder without text": (("data", "prepare", "text", "--data-dir", "."), [". ", ".txt, .jsonl"]),
    "a folder without WikiText": (
        ("data", "prepare", "wikitext2", "--data-dir", "."),
        ["wikitext2", "wikitext-2-raw-v1/train-00000-of"],
    ),
    "a folder without FineWeb": (
        ("data", "prepare", "fineweb-edu", "--data-dir", "."),
        ["fineweb-edu", "sample/10BT/*.parquet"],
    ),
    "unknown tokenizer": (("data", "prepare", "text", "--set", "tokenizer=bep"), ["'bep'", "bytes, bpe, gpt2"]),
    "a vocabulary of bytes": (("data", "info", "text", "--set", "vocab=300"), ["300", "--set vocab=0"]),
    "a vocabulary below the bytes": (
        ("data", "info", "text", "--set", "tokenizer=bpe", "--set", "vocab=200"),
        ["200", "at least 258"],
    ),
    "an option that is not of the data": (("data", "prepare", "text", "--set", "lr=1"), ["'lr'", "suite show"]),
    "prepare without images": (("data", "prepare", "imagenet100"), ["imagenet-1k", "--data-dir DIR"]),
    "oversize mixer": (("run", *FEM, "--set", "d_v=512"), ["fem", "mixer.d_v=", "--unmatched"]),
    "unknown task of a board": (("leaderboard", "--task", "sotuu"), ["'sotuu'", "did you mean 'sotu'"]),
    "unknown domain": (("leaderboard", "--domain", "visoin"), ["'visoin'", "did you mean 'vision'"]),
    "unknown scale of a board": (("leaderboard", "--scale", "quik"), ["'quik'", "did you mean 'quick'"]),
    "unknown task of the ui": (("ui", "--task", "sotuu"), ["'sotuu'", "did you mean 'sotu'"]),
    "unknown task to publish": (("publish", "--task", "sotuu"), ["'sotuu'", "did you mean 'sotu'"]),
    "publish a missing folder": (("publish", "--records", "none"), ["'none'", "does not exist"]),
    "port": (("ui", "--port", "0"), ["'--port'", "1"]),
}


def missing_parts(parts: list[str], message: str) -> list[str]:
    return [part for part in parts if part.lower() not in message.lower()]


@pytest.mark.parametrize("name", INVALID)
def test_invalid_input_is_one_line_on_stderr_and_exit_code_2(suite, runs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments, parts = INVALID[name]
    ended = suite(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert missing_parts(parts, ended.err) == [], ended.err
    assert (name == "no command") == bool(ended.out)  # the help
    assert not list(runs.glob("*/config.json"))  # no run was started


#: By name: the content of the recipe, and what the message must contain.
INVALID_RECIPES: dict[str, tuple[str | bytes, list[str]]] = {
    "not TOML": ("steps = = 3", ["recipe.toml", "line 1, column 9"]),
    "unknown top-level name": ("sede = 1", ["'sede'", "did you mean 'seed'"]),
    "unknown section": ("[trian]\nlr = 1", ["'trian'", "did you mean 'train'"]),
    "unknown option": ("[train]\nstpes = 3", ["'train.stpes'", "did you mean 'steps'"]),
    "option of another section": ("[model]\nlr = 3", ["'model.lr'", "dim, depth"]),
    "a section that is a value": ("train = 3", ["'train'", "[train]"]),
    "a mixer that is a number": ("mixer = 3", ["'mixer'", "[mixer]"]),
    "a task that is a number": ("task = 3", ["task", "3", "string"]),
    "a hybrid that is a list": ("hybrid = [1, 2]", ["hybrid", "[1, 2]", "string"]),
    "a seed that is a text": ('seed = "one"', ["seed", "'one'", "0 to 2147483647"]),
    "a seed that is a boolean": ("seed = true", ["seed", "True", "0 to 2147483647"]),
    "a value out of range": ("[train]\nlr = -1", ["train.lr", "-1", "greater than 0"]),
    "a value that is no number": ('[train]\nlr = "fast"', ["train.lr", "'fast'", "number"]),
    "a value that is a list": ("[train]\nlr = [1]", ["train.lr", "[1]", "number"]),
    "an infinite value": ("[train]\nlr = inf", ["train.lr", "inf", "finite number"]),
    "not text": (b"\xff\xfe", ["recipe.toml", "utf-8"]),
}


@pytest.mark.parametrize("name", INVALID_RECIPES)
def test_an_invalid_recipe_is_one_line_and_exit_code_2(suite, tmp_path, name):
    content, parts = INVALID_RECIPES[name]
    path = tmp_path / "recipe.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = [] if "task" in name else ["--task", "fashion-mnist"]
    arguments += [] if "mixer" in name else ["--mixer", "fem"]
    ended = suite("run", *arguments, "--recipe", str(path))
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert missing_parts(parts, ended.err) == [], ended.err


@pytest.mark.parametrize("place", ["/proc/runs", "below a file"])
def test_a_runs_folder_that_is_not_writable_is_one_line(suite, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "runs") if place == "below a file" else place
    monkeypatch.setenv("SUITE_HOME", folder)
    ended = suite(*tiny_arguments("fashion-mnist"))
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert missing_parts([folder, "SUITE_HOME"], ended.err) == [], ended.err


def test_a_finished_run_cannot_be_resumed(suite):
    outcome = start(tiny_config("fashion-mnist", "softmax", "steps=1"), data_dir=None, device="cpu")
    run_id = outcome.record.id
    for name in (run_id, str(runs_folder.find_run(run_id)), run_id[-6:]):
        ended = suite("run", "--resume", name)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert missing_parts([run_id, "finished"], ended.err) == [], ended.err


def test_a_run_without_a_checkpoint_cannot_be_resumed(suite):
    folder = runs_folder.new_run(tiny_config("fashion-mnist"), None)
    ended = suite("run", "--resume", folder.name)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert missing_parts([folder.name, "checkpoint"], ended.err) == [], ended.err


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {}, "data_dir": null, "created": ""}'])
def test_a_run_whose_config_is_damaged_is_one_line(suite, content):
    folder = runs_folder.new_run(tiny_config("fashion-mnist"), None)
    (folder / runs_folder.CONFIG).write_text(content)
    ended = suite("run", "--resume", folder.name)
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_an_ambiguous_name_of_a_run_is_one_line(suite):
    for seed in (0, 1):
        runs_folder.new_run(tiny_config("fashion-mnist", seed=seed), None)
    ended = suite("show", "2")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert missing_parts(["'2'", "2 runs"], ended.err) == [], ended.err


def test_a_bug_of_the_suite_keeps_its_traceback(suite, monkeypatch):
    monkeypatch.setattr("suite.cli.commands.listing.describe_tasks", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["suite", "list", "tasks"])
    with pytest.raises(ZeroDivisionError):
        app.main()


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.EACCES, "permission denied"), (errno.ENOSPC, "no space left on device")]
)
def test_a_path_that_cannot_be_used_is_one_line(suite, monkeypatch, code, reason):
    def refused(*_):
        raise OSError(code, os.strerror(code), "/some/where.csv")

    monkeypatch.setattr("suite.cli.commands.data.describe_data", refused)
    ended = suite("data", "info", "csv")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert missing_parts(["/some/where.csv", reason, "use another path"], ended.err) == [], ended.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unknown command", "unknown task", "out of range", "unknown run"])
def test_the_installed_command_behaves_the_same(runs, tmp_path, name):
    command = Path(sys.executable).with_name("suite")
    arguments, parts = INVALID[name]
    done = subprocess.run([str(command), *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert missing_parts(parts, done.stderr) == [], done.stderr
