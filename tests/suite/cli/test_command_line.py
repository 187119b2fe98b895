"""The command line: frozen, one JSON document where asked, one line for every mistake."""

from __future__ import annotations

import errno
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from suite.cli import app
from suite.cli.commands import run
from suite.records import record, runs_folder
from suite.training.run import start
from tests.suite.tiny import made_record, tiny_arguments, tiny_config

CONFIG = {"--task", "--mixer", "--scale", "--horizon", "--track", "--hybrid", "--set", "--recipe"}
#: The whole command line. A change here is a change for every user: keep old names working, or say in the notes what
#: changed.
COMMANDS = {
    "run": CONFIG
    | {"--seed", "--steps", "--data-dir", "--device", "--resume", "--unmatched", "--skip-variant-layers", "--json"},
    "list tasks": {"--json"},
    "list mixers": {"--json"},
    "show": CONFIG | {"RUN", "--json"},
    "budget": CONFIG | {"--json"},
    "data info": {"TASK", "--data-dir", "--scale", "--set", "--json"},
    "data prepare": {"TASK", "--data-dir", "--scale", "--set", "--json"},
    "leaderboard": {"--task", "--domain", "--scale", "--markdown", "--json"},
    "ui": {"--task", "--port", "--browser", "--no-browser"},
    "bench": {"KIND", "--mixer", "--lengths", "--against", "--rounds", "--threads", "--plot", "--out", "--json"},
    "upload": {"--json", "RUN"},
    "doctor": {"--json"},
    "generate": {"RUN", "--prompt", "--tokens", "--temperature", "--top-k", "--seed", "--device", "--json"},
    "lm-eval": {"RUN", "--tasks", "--limit", "--include", "--batch-size", "--device", "--json"},
    "check": {"NAME", "--data-dir", "--set", "--slow", "--json"},
}


def parameters(command) -> set[str]:
    names = set()
    for parameter in command.params:
        options = [*parameter.opts, *parameter.secondary_opts]
        names |= (
            {parameter.metavar.strip("[]")}
            if parameter.param_type_name == "argument"
            else {o for o in options if o != "--help"}
        )
    return names


def walk(command, path: str = "") -> dict[str, set[str]]:
    if hasattr(command, "commands"):
        return {
            name: found
            for part, sub in command.commands.items()
            for name, found in walk(sub, f"{path} {part}".strip()).items()
        }
    return {path: parameters(command)}


def test_the_commands_and_their_options_are_these():
    assert walk(typer.main.get_command(app.app)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(suite, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    ended = suite(*name.split(), "--help")
    assert ended.code == 0
    usage, _, rest = ended.out.partition("Usage: ")[2].partition("\n")
    assert usage.startswith(f"suite {name} ")
    assert f"suite {name}" in rest


def test_run_defaults_to_the_quick_scale_and_seed_zero():
    from suite.models.resolve import resolve

    made = resolve(task="sotu", mixer="fem")
    assert (made.scale, made.seed) == ("quick", 0)
    assert inspect.signature(run.run).parameters["device"].default == "auto"


# --- JSON
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "list tasks",
        "list mixers",
        "show --task sotu --mixer fem",
        "budget --task household-power --mixer fem --scale board",
        "data info fashion-mnist",
        "data info imagenet100",
        "data prepare fashion-mnist",
        "leaderboard",
    ],
)
def test_json_is_one_document_on_stdout_and_nothing_else(suite, arguments):
    ended = suite(*arguments.split(), "--json")
    assert ended.code == 0, ended.err
    json.loads(ended.out)


@pytest.mark.slow  # the doctor asks the tracking store
def test_the_doctors_json_is_one_document(suite):
    ended = suite("doctor", "--json")
    checks = json.loads(ended.out)
    assert ended.code == 0, checks
    assert {check["name"] for check in checks} >= {"packages", "runs folder", "records", "tracking store"}


def test_a_runs_json_is_its_record(suite, runs):
    ended = suite(*tiny_arguments("fashion-mnist", "fem"), "--json")
    assert ended.code == 0, ended.err
    shown = json.loads(ended.out)
    [path] = runs.glob("*/record.json")
    assert shown == json.loads(path.read_text())
    assert shown["hash"]
    shown_again = suite("show", shown["id"], "--json")
    assert json.loads(shown_again.out) == shown
    board = json.loads(suite("leaderboard", "--task", "fashion-mnist", "--json").out)
    assert [row["runs"] for b in board for row in b["rows"]] == [[shown["id"]]]


def test_the_budgets_json_has_the_promised_keys(suite):
    shown = json.loads(suite("budget", "--task", "imagenet100", "--mixer", "fem", "--json").out)
    promised = (
        "task mixer matched parameters reference_parameters ratio mixer_parameters "
        "reference_mixer_parameters mixer_ratio"
    )
    assert {*promised.split(), "flops", "reference_flops", "state_bytes"} <= shown.keys()
    assert shown["matched"] is True


def test_markdown_and_tables_go_to_stdout_too(suite, runs):
    for name, mixer in (("a", "softmax"), ("b", "fem")):
        (runs / name).mkdir(parents=True)
        record.write(runs / name, made_record(mixer, name=name))
    markdown = suite("leaderboard", "--markdown")
    assert markdown.out.startswith("**fashion-mnist · board**")
    assert markdown.err == ""
    assert "fashion-mnist · board" in suite("leaderboard").out


# --- Mistakes
# --------------------------------------------------------------------------------------------------

FEM = ("--task", "fashion-mnist", "--mixer", "fem")
MISTAKES = {
    "unknown command": (("rnu",), "Did you mean 'run'"),
    "no command": ((), "no command given"),
    "missing argument": (("data", "info"), "Missing argument 'TASK'"),
    "unknown option": (("run", *FEM, "--stpes", "3"), "No such option: --stpes"),
    "option without its value": (("run", "--task"), "requires an argument"),
    "no task": (("run", "--mixer", "fem"), "no task given"),
    "no mixer": (("run", "--task", "sotu"), "no mixer given"),
    "unknown task": (("run", "--task", "fashion-mnits", "--mixer", "fem"), "did you mean 'fashion-mnist'"),
    "unknown task, nothing near": (("run", "--task", "zzz", "--mixer", "fem"), "sotu, fashion-mnist"),
    "unknown mixer": (("run", "--task", "sotu", "--mixer", "fme"), "did you mean 'fem'"),
    "mixer file that is not there": (("run", "--task", "sotu", "--mixer", "mine.py:Mine"), "does not exist"),
    "unknown scale": (("run", *FEM, "--scale", "smal"), "did you mean 'small'"),
    "a recipe's inner name as scale": (("run", *FEM, "--scale", "common"), "unknown scale 'common'"),
    "unknown key": (("run", *FEM, "--set", "batch_sise=3"), "did you mean 'batch_size'"),
    "unknown section": (("run", *FEM, "--set", "trian.lr=3"), "did you mean 'train'"),
    "ambiguous key": (("run", *FEM, "--set", "heads=2"), "name one of them"),
    "no equals sign": (("run", *FEM, "--set", "lr"), "--set takes key=value"),
    "not a number": (("run", *FEM, "--set", "lr=fast"), "train.lr"),
    "not finite": (("run", *FEM, "--set", "lr=inf"), "train.lr: Input should be a finite number"),
    "nan": (("run", *FEM, "--set", "weight_decay=nan"), "train.weight_decay"),
    "out of range": (("run", *FEM, "--set", "dropout=1.5"), "less than 1"),
    "no fraction of a step": (("run", *FEM, "--set", "steps=1.5"), "train.steps"),
    "dim and heads": (("run", *FEM, "--set", "dim=65"), "must be an even multiple of heads"),
    "patch": (("run", *FEM, "--set", "patch=5"), "allowed are 1, 2, 4, 7, 14, 28"),
    "not causal": (("run", "--task", "sotu", "--mixer", "fem", "--set", "causal=false"), "task 'sotu' decides it"),
    "steps": (("run", *FEM, "--steps", "0"), "--steps"),
    "steps as words": (("run", *FEM, "--steps", "many"), "'--steps': Input should be a valid integer"),
    "negative seed": (("run", *FEM, "--seed", "-1"), "0 to 2147483647"),
    "large seed": (("run", *FEM, "--seed", "2147483648"), "0 to 2147483647"),
    "bad horizon": (("run", "--task", "household-power", "--mixer", "fem", "--horizon", "0"), "data.horizon"),
    "horizon of a task without": (("run", *FEM, "--horizon", "96"), "option of forecasting tasks"),
    "unknown track": (
        ("run", "--task", "household-power", "--mixer", "fem", "--track", "fixed-95"),
        "'fixed-336' or 'fixed-96'",
    ),
    "track of a task without": (("run", *FEM, "--track", "fixed-96"), "option of forecasting tasks"),
    "unknown hybrid": (("run", *FEM, "--hybrid", "evne"), "did you mean 'even'"),
    "skipping without a hybrid": (("run", *FEM, "--skip-variant-layers"), "needs a hybrid"),
    "generate from an unknown run": (("generate", "nothing"), "no run 'nothing'"),
    "check of an unknown mixer": (("check", "fme"), "did you mean 'fem'"),
    "check of an unknown task": (("check", "sotuu"), "did you mean 'sotu'"),
    "check of a mixer with data": (("check", "fem", "--data-dir", "."), "--data-dir is an option of tasks"),
    "check of a task with an unknown option": (("check", "sotu", "--set", "lenght=4"), "did you mean 'length'"),
    "hybrid layer": (("run", *FEM, "--hybrid", "99"), "has layers 1 to"),
    "recipe that is not there": (("run", *FEM, "--recipe", "none.toml"), "does not exist"),
    "recipe that is a folder": (("run", *FEM, "--recipe", "."), "cannot be read"),
    "device that is not there": (("run", *FEM, "--device", "cuda:7"), "allowed here: auto, cpu"),
    "device that is none": (("run", *FEM, "--device", "tpuu"), "allowed here: auto, cpu"),
    "device without values": (("run", *FEM, "--device", "meta"), "allowed here: auto, cpu"),
    "unknown run": (("run", "--resume", "nothing"), "no run 'nothing'"),
    "resume with options": (("run", "--resume", "nothing", "--steps", "3"), "drop the other options"),
    "resume with a seed of zero": (("run", "--resume", "nothing", "--seed", "0"), "drop the other options"),
    "run and task": (("show", "nothing", "--task", "sotu"), "not both"),
    "show an unknown run": (("show", "nothing"), "no run 'nothing'"),
    "upload an unknown run": (("upload", "nothing"), "no run 'nothing'"),
    "no images": (("run", "--task", "imagenet100", "--mixer", "fem"), "--data-dir DIR with train/ and val/"),
    "images that are not there": (
        ("run", "--task", "imagenet100", "--mixer", "fem", "--data-dir", "none"),
        "is not a folder",
    ),
    "a folder for embedded data": (("run", *FEM, "--data-dir", "."), "ships its data"),
    "no text": (("run", "--task", "text", "--mixer", "fem"), "pass --data-dir DIR with .txt, .jsonl or .parquet files"),
    "text that is not there": (("data", "prepare", "text", "--data-dir", "none"), "does not exist"),
    "a folder without text": (("data", "prepare", "text", "--data-dir", "."), "holds no text"),
    "a folder without WikiText": (
        ("data", "prepare", "wikitext2", "--data-dir", "."),
        "holds no wikitext-2-raw-v1/train-00000-of",
    ),
    "a folder without FineWeb": (
        ("data", "prepare", "fineweb-edu", "--data-dir", "."),
        "holds no sample/10BT/*.parquet",
    ),
    "unknown tokenizer": (("data", "prepare", "text", "--set", "tokenizer=bep"), "bytes, bpe, gpt2 or the path of a"),
    "a vocabulary of bytes": (("data", "info", "text", "--set", "vocab=300"), "has a vocabulary of 257, 300 was given"),
    "a vocabulary below the bytes": (
        ("data", "info", "text", "--set", "tokenizer=bpe", "--set", "vocab=200"),
        "at least 258 is allowed",
    ),
    "an option that is not of the data": (("data", "prepare", "text", "--set", "lr=1"), "unknown option 'lr'"),
    "prepare without images": (("data", "prepare", "imagenet100"), "--data-dir DIR"),
    "oversize mixer": (("run", *FEM, "--set", "d_v=512"), "not matched"),
    "unknown board": (("leaderboard", "--task", "sotuu"), "did you mean 'sotu'"),
    "unknown domain": (("leaderboard", "--domain", "visoin"), "did you mean 'vision'"),
    "unknown board scale": (("leaderboard", "--scale", "quik"), "did you mean 'quick'"),
    "unknown task of the ui": (("ui", "--task", "sotuu"), "did you mean 'sotu'"),
    "port": (("ui", "--port", "0"), "--port"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(suite, runs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments, said = MISTAKES[name]
    ended = suite(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err
    assert (name == "no command") == bool(ended.out)  # the help
    assert not list(runs.glob("*/config.json"))  # nothing has been started


RECIPES = {
    "not TOML": ("steps = = 3", "cannot be read"),
    "unknown top-level name": ("sede = 1", "did you mean 'seed'"),
    "unknown section": ("[trian]\nlr = 1", "did you mean 'train'"),
    "unknown option": ("[train]\nstpes = 3", "did you mean 'steps'"),
    "option of another section": ("[model]\nlr = 3", "unknown option 'model.lr'"),
    "a section that is a value": ("train = 3", "write [train]"),
    "a mixer that is a number": ("mixer = 3", "write [mixer]"),
    "a task that is a number": ("task = 3", "task is a text"),
    "a hybrid that is a list": ("hybrid = [1, 2]", "hybrid is a text"),
    "a seed that is a text": ('seed = "one"', "0 to 2147483647"),
    "a seed that is a truth": ("seed = true", "0 to 2147483647"),
    "a value out of range": ("[train]\nlr = -1", "train.lr"),
    "a value that is no number": ('[train]\nlr = "fast"', "train.lr"),
    "a value that is a list": ("[train]\nlr = [1]", "train.lr"),
    "infinite": ("[train]\nlr = inf", "train.lr"),
    "not text": (b"\xff\xfe", "cannot be read"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_mistake_in_a_recipe_is_one_line(suite, tmp_path, name):
    content, said = RECIPES[name]
    path = tmp_path / "recipe.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = [] if "task" in name else ["--task", "fashion-mnist"]
    arguments += [] if "mixer" in name else ["--mixer", "fem"]
    ended = suite("run", *arguments, "--recipe", str(path))
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("place", ["/proc/runs", "below a file"])
def test_a_runs_folder_that_cannot_be_written_is_one_line(suite, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUITE_HOME", str(tmp_path / "file" / "runs") if place == "below a file" else place)
    ended = suite(*tiny_arguments("fashion-mnist"))
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert "runs cannot be written to" in ended.err
    assert "SUITE_HOME" in ended.err


def test_a_finished_run_cannot_be_resumed(suite):
    outcome = start(tiny_config("fashion-mnist", "softmax", "steps=1"), data_dir=None, device="cpu")
    for name in (outcome.record.id, str(runs_folder.find_run(outcome.record.id)), outcome.record.id[-6:]):
        ended = suite("run", "--resume", name)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "is finished" in ended.err


def test_a_run_that_never_saved_a_checkpoint_cannot_be_resumed(suite):
    folder = runs_folder.new_run(tiny_config("fashion-mnist"), None)
    ended = suite("run", "--resume", folder.name)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "stopped before its first one" in ended.err


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {}, "data_dir": null, "created": ""}'])
def test_a_run_whose_config_is_damaged_is_one_line(suite, content):
    folder = runs_folder.new_run(tiny_config("fashion-mnist"), None)
    (folder / runs_folder.CONFIG).write_text(content)
    ended = suite("run", "--resume", folder.name)
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_a_name_that_stands_for_several_runs_is_one_line(suite):
    for seed in (0, 1):
        runs_folder.new_run(tiny_config("fashion-mnist", seed=seed), None)
    ended = suite("show", "2")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "stands for 2 runs" in ended.err


def test_a_budget_that_is_not_kept_exits_with_1_and_names_what_fits(suite):
    ended = suite("budget", *FEM, "--set", "d_v=512", "--json")
    shown = json.loads(ended.out)
    assert ended.code == 1
    assert shown["matched"] is False
    assert shown["nearest_fit"].startswith("mixer.d_v=")
    assert "not matched" in suite("budget", *FEM, "--set", "d_v=512").out


def test_a_fault_of_the_suite_itself_is_not_hidden(suite, monkeypatch):
    monkeypatch.setattr("suite.cli.commands.listing.describe_tasks", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["suite", "list", "tasks"])
    with pytest.raises(ZeroDivisionError):
        app.main()


@pytest.mark.parametrize(
    ("kind", "said"), [(errno.EACCES, "permission denied"), (errno.ENOSPC, "no space left on device")]
)
def test_a_place_that_cannot_be_used_is_told_in_one_line(suite, monkeypatch, kind, said):
    def refused(*_):
        raise OSError(kind, os.strerror(kind), "/some/where.csv")

    monkeypatch.setattr("suite.cli.commands.data.describe_data", refused)
    ended = suite("data", "info", "csv")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"/some/where.csv: {said}" in ended.err


def test_paths_with_brackets_are_shown_as_they_are(suite, tmp_path, monkeypatch):
    """Square brackets are markup to the library that prints."""
    folder = tmp_path / "a[/b]c[red]"
    monkeypatch.setenv("SUITE_HOME", str(folder))
    ended = suite("leaderboard")
    assert ended.code == 0
    assert "".join(str(folder).split()) in "".join(ended.err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--task", "fashion-mnits", "--mixer", "fem"), "did you mean 'fashion-mnist'"),
        (("run", *FEM, "--set", "lr=-1"), "train.lr"),
        (("nonsense",), "No such command"),
        (("run", "--resume", "nothing"), "no run 'nothing'"),
    ],
)
def test_the_installed_command_behaves_the_same(runs, tmp_path, arguments, said):
    command = Path(sys.executable).with_name("suite")
    done = subprocess.run([str(command), *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


@pytest.mark.slow
def test_doctor_opens_a_store_without_a_word_of_its_library(tmp_path):
    environment = {**os.environ, "SUITE_HOME": str(tmp_path / "runs")}
    command = [sys.executable, "-m", "suite", "doctor", "--json"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert next(check["message"] for check in json.loads(ended.stdout) if check["name"] == "tracking store").startswith(
        "answers"
    )
