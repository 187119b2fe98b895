"""Random command lines and damaged files: no traceback, no file outside the given folders, no named file executed.

A seeded generator makes the inputs, so that a failure can be repeated: its message has the input. A few hundred run in
every test run, 2,000 of each kind and the separate processes with `-m slow`.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from suite.config.identity import digest
from suite.errors import UserError
from suite.records import runs_folder
from suite.records.collection import read_all
from suite.safe_text import visible
from suite.tracking.client import Tracker
from suite.tracking.journal import JOURNAL
from suite.training import checkpoint
from tests.suite.cli.user_processes import suite_process
from tests.suite.records import edited
from tests.suite.tiny import tiny_config

FEW, MANY, PROCESSES = 80, 2000, 50
LINE = 2_100  # characters of an error message
EVIL = "from pathlib import Path\nPath({marker!r}).write_text('executed')\n"
WORDS = (
    *("fem", "softmax", "sotu", "fashion-mnist", "csv", "text", "mqar", "household-power", "board", "quick", "even"),
    *("", "-", "--", "none", "None", "null", "true", "nan", "inf", "-1", "0", "1", "1e400", "9" * 30, "0x10", "1_000"),
    *("x" * 3000, "é日本", "\x1b[31m", "\u202e", "[red]", "<b>", "a\nb", "{}", "{0.__class__}", "%s%n", "$(id)", "~"),
    *(
        "..",
        "/",
        "/dev/null",
        "/proc/self/mem",
        "evil.py:X",
        "baseline/dlinear",
        "baseline/",
        ".py:",
        "evil.py:",
        "a\x00b",
    ),
)
OPTIONS = (
    *("--task", "--mixer", "--scale", "--seed", "--steps", "--horizon", "--track", "--hybrid", "--set", "--recipe"),
    *("--data-dir", "--device", "--unmatched", "--skip-variant-layers", "--json", "--resume", "--markdown", "--domain"),
    *("--prompt", "--tokens", "--temperature", "--top-k", "--help", "--slow", "--nothing"),
)
SETS = ("lr", "dim", "model.heads", "mixer.heads", "length", "depth", "patch", "d_v", "train.ema", "data.vocab", "x.y")
COMMANDS: tuple[list[str], ...] = (
    *(["run"], ["budget"], ["show"], ["leaderboard"], ["data", "info"], ["generate"], ["check"], ["upload"], ["list"]),
    *(["list", "nothing"], ["data"], ["nothing"], [], ["run", "--resume", "received"], ["show", "received"]),
)


@pytest.fixture
def fenced(tmp_path, monkeypatch, runs) -> Iterator[Path]:
    """The current folder: only `evil.py`. What takes long once its arguments are valid ends where it would begin."""

    def begins(*_: object, **__: object) -> None:
        raise UserError("the arguments are valid")

    for name in (
        "suite.training.run.carry_out",
        "suite.loading.checkpoint.load",
        "backbones.contract.run.run_checks",
        "tasks.contract.run.run_checks",
        "suite.tracking.delivery.Store",
    ):
        monkeypatch.setattr(name, begins)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "marker")))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SUITE_TRACKING", "off")
    yield folder
    assert sorted(path.name for path in folder.iterdir()) in (["evil.py"], ["__pycache__", "evil.py"])
    assert {path.name for path in tmp_path.iterdir()} <= {"elsewhere", "runs", "recipe.toml"}


def command_line(draw: random.Random) -> list[str]:
    """A command with random options; one in three values is a plausible `--set`. `--mixer` and `--task` never name the
    file: a command line may execute it.
    """
    made = list(draw.choice(COMMANDS))
    made += [draw.choice(WORDS)] if draw.random() < 0.3 else []
    if draw.random() < 0.7 and made[:1] in (["run"], ["budget"], ["show"]) and len(made) == 1:
        made += ["--task", "sotu", "--mixer", draw.choice(("softmax", "fem"))]
    for _ in range(draw.randrange(4)):
        option, value = draw.choice(OPTIONS), draw.choice(WORDS)
        if option == "--set" and draw.random() < 0.8:
            value = f"{draw.choice(SETS)}={draw.choice(WORDS)}"
        made += [option] if draw.random() < 0.2 else [option, value]
    return [part.replace("\x00", "0") if made[0:1] == ["data"] else part for part in made]


def checked(ended: Any, given: object) -> None:
    text = ended.out + ended.err
    assert ended.code in (0, 1, 2), (given, text)
    assert "Traceback" not in text, given
    assert [char for char in text if visible(char) != char] == [], given
    if ended.code == 2:
        assert max(map(len, ended.err.splitlines()), default=0) <= LINE, given


def try_command_lines(suite: Callable[..., Any], count: int, seed: int, marker: Path) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        arguments = command_line(draw)
        if "evil.py:X" in arguments:
            continue
        try:
            ended = suite(*arguments)
        except Exception as error:
            raise AssertionError(f"{arguments}: {type(error).__name__}: {error}") from error
        checked(ended, arguments)
    assert not marker.exists()


def test_random_command_lines_end_with_a_message(suite, fenced, tmp_path):
    try_command_lines(suite, 2 * FEW, 1, tmp_path / "marker")


@pytest.mark.slow
def test_many_random_command_lines_end_with_a_message(suite, fenced, tmp_path):
    try_command_lines(suite, MANY, 2, tmp_path / "marker")


@cache
def sound_record() -> dict[str, Any]:
    return edited.plain(edited.full_record())


@cache
def originals() -> dict[str, str]:
    """One sound file of each kind."""
    config = {
        "config": tiny_config("sotu", "fem").canonical(),
        "data_dir": None,
        "created": "2026-01-01T00:00:00+00:00",
    }
    events: list[dict[str, object]] = [
        {"kind": "start", "time": 1, "tags": {"a": "b"}, "experiment": "e", "run_name": "n", "params": {"p": "1"}},
        *({"kind": "metrics", "time": n, "step": n, "values": {"loss": 1 / n}} for n in range(1, 9)),
        {"kind": "summary", "time": 9, "step": 9, "values": {"test/loss": 1.0}},
        {"kind": "finish", "time": 10, "status": "FINISHED"},
    ]
    recipe = (
        'task = "sotu"\nscale = "board"\nseed = 1\nhybrid = "even"\n[data]\nlength = 16\n[model]\ndim = 32\nheads = 2\n'
        'depth = 2\n[mixer]\nname = "fem"\nlse = true\n[train]\nsteps = 6\nlr = 1e-3\nprecision = "fp32"\n'
    )
    return {
        "record": json.dumps(sound_record()),
        "config": json.dumps(config),
        "journal": "".join(json.dumps(event) + "\n" for event in events),
        "recipe": recipe,
    }


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, 10**400, 1e308, -0.0, "", "evil.py:X", "./evil.py:X", "../../evil.py:X"),
    *(
        "built-in",
        "baseline",
        "\x1b[2J",
        "x" * 5000,
        [],
        {},
        [[]],
        {"a": {"b": 1}},
        ["evil.py:X"],
        {"name": "evil.py:X"},
    ),
)
PIECES = (
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b"{",
    b"]",
    b'"',
    b"[" * 3000,
    b"9" * 5000,
    b"NaN",
    b"1e999",
    b"evil.py:X",
    b"=\n",
)


def damaged(text: str, draw: random.Random, kind: str) -> bytes:
    """The file with a value changed where it is JSON, or with its bytes damaged."""
    if kind in ("record", "config") and draw.random() < 0.7:
        content = json.loads(text)
        for _ in range(draw.randrange(1, 3)):
            path = draw.choice(list(edited.leaves(content)))
            path = path[: draw.randrange(1, len(path) + 1)]
            change = edited.without(content, path) if draw.random() < 0.2 else None
            content = change or edited.changed(content, path, draw.choice(VALUES))
        try:
            if kind == "record":
                return json.dumps(rehashed(content)).encode()
            return json.dumps(content).encode()
        except (ValueError, TypeError):
            pass
    raw = bytearray(text.encode())
    for _ in range(draw.randrange(1, 4)):
        at, length = draw.randrange(len(raw) + 1), draw.randrange(1, 40)
        match draw.randrange(5):
            case 0:
                raw[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del raw[at : at + length]
            case 2:
                raw[at:at] = raw[at : at + length]
            case 3:
                raw[at:at] = draw.choice(PIECES)
            case 4:
                del raw[at:]
    return bytes(raw)


def rehashed(content: dict[str, Any]) -> dict[str, Any]:
    """As someone would write it who computes the hash again."""
    return {**content, "hash": digest({name: value for name, value in content.items() if name != "hash"})}


def try_files(suite: Callable[..., Any], kind: str, count: int, seed: int, runs: Path, tmp_path: Path) -> None:
    draw, recipe, folder = random.Random(seed), tmp_path / "recipe.toml", runs / "received"
    text = originals()[kind]
    for number in range(count):
        content = damaged(text, draw, kind)
        shutil.rmtree(runs, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / runs_folder.CONFIG).write_text(originals()["config"])
        (folder / checkpoint.NAME).write_bytes(b"none")
        names = {"record": "record.json", "config": runs_folder.CONFIG, "journal": JOURNAL}
        (recipe if kind == "recipe" else folder / names[kind]).write_bytes(content)
        try:
            for ended in use(suite, kind, number, folder, recipe):
                checked(ended, content)
        except Exception as error:
            raise AssertionError(f"{content!r}: {type(error).__name__}: {error}") from error
        assert not (tmp_path / "marker").exists(), content


def use(suite: Callable[..., Any], kind: str, number: int, folder: Path, recipe: Path) -> Iterator[Any]:
    """Every way in which a file of that kind is read, one per file in turn."""
    match kind:
        case "record":
            read_all()
            commands = (
                ["leaderboard"],
                ["show", "received"],
                ["leaderboard", "--markdown"],
                ["show", "received", "--json"],
            )
            if number % 4 == 0:
                yield suite(*commands[number // 4 % 4])
        case "config":
            yield suite(*(["run", "--resume", "received"], ["generate", "received"], ["show", "received"])[number % 3])
        case "recipe":
            yield suite(*(["budget", "--json"], ["show"])[number % 2], "--recipe", str(recipe), "--mixer", "softmax")
        case "journal":
            tracker = Tracker(
                home=folder.parent,
                run_dir=folder,
                experiment="e",
                run_name="n",
                params={},
                tags={},
                warn=lambda _: None,
                resume=True,
            )
            tracker.log(100, {"loss": 1.0})
            tracker.finish("FINISHED")
            if number % 4 == 0:
                yield suite("upload", "received")


KINDS = ("record", "config", "recipe", "journal")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_or_read(suite, fenced, runs, tmp_path, kind):
    try_files(suite, kind, FEW, 3, runs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_are_refused_or_read(suite, fenced, runs, tmp_path, kind):
    try_files(suite, kind, MANY // len(KINDS), 4, runs, tmp_path)


@pytest.mark.slow
def test_random_command_lines_as_processes_end_with_a_message(tmp_path):
    draw, done = random.Random(5), 0
    (tmp_path / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "marker")))
    while done < PROCESSES:
        arguments = [part.replace("\x00", "") for part in command_line(draw)]
        if arguments[:1] in (["run"], ["check"]) or "evil.py:X" in arguments:
            continue  # a valid one would take long
        ended = suite_process(tmp_path, *arguments)
        done += 1
        assert ended.returncode in (0, 1, 2), (arguments, ended)
        assert "Traceback" not in ended.stderr, (arguments, ended.stderr)
    assert {path.name for path in tmp_path.iterdir()} <= {"evil.py", "runs", "cache"}
