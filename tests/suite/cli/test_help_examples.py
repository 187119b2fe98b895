"""Every example in a help text is executed: training, servers and long measurements by stand-ins."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from suite.cli import app
from suite.cli.commands.boards.leaderboard import files_of, find_boards, write_files
from suite.records import record
from tests.suite.cli.world import build, watched
from tests.suite.tiny import made_record

ROOT = Path(__file__).resolve().parents[3]
#: What examples call runs, and which run of `world.py` that is here.
RUNS = {
    "20260101-000000-sotu-fem-quick-s0-3f2a": "text_1",
    "20260101-000001-wikitext103-fem-quick-s0-0001": "text_1",
    "20260101-000002-fashion-mnist-fem-quick-s0-0002": "text_2",
    "20260101-000003-etth1-fem-quick-s0-0003": "series_1",
}


def examples_below(command, path: str = "suite") -> Iterator[tuple[str, str]]:
    """(the command, an example in its help) of every command."""
    for text in (command.help or "", command.epilog or ""):
        yield from ((path, example) for example in re.findall(r"`(suite [^`]+)`", text) if "…" not in example)
    for name, part in getattr(command, "commands", {}).items():
        yield from examples_below(part, f"{path} {name}")


EXAMPLES = sorted({example for _, example in examples_below(typer.main.get_command(app.app))})


def words_of(example: str) -> list[str]:
    """The suite's part of a line of a shell."""
    alone = re.split(r" (?:>|\||&&) ", example)[0]
    return [str(Path(word).expanduser()) if word.startswith("~") else word for word in shlex.split(alone)]


def test_every_command_has_an_example_that_is_found_here():
    commands = {path for path, _ in examples_below(typer.main.get_command(app.app))}
    assert len(commands) >= 20
    assert len(EXAMPLES) >= 28
    assert words_of("suite sweep --plan p && xargs -n 1 sh -c < p") == ["suite", "sweep", "--plan", "p"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with runs, data and files under the names that examples use."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUITE_TRACKING", "off")
        patch.setenv("SUITE_HOME", "")
        names = build(root)
    for name, kind in RUNS.items():
        shutil.copytree(root / "runs" / names[kind], root / "runs" / name)
    for number, mixer in enumerate(("fem", "fem", "simple-gla", "simple-gla")):
        made = made_record(mixer, 3.0 + number / 10, task="sotu", seed=number % 2, name=f"made-sotu-{number}")
        (root / "runs" / made.id).mkdir()
        record.write(root / "runs" / made.id, made)
    for folder in ("imagenet/train", "imagenet/val", "novels"):
        (root / "home" / folder).mkdir(parents=True)
    for number in range(3):
        text = " ".join(f"word{i * i % (977 + number)} of line {i % 89}." for i in range(20_000))
        (root / "home" / "novels" / f"{number}.txt").write_text(text)
    (root / "notes.md").write_text("notes")
    shutil.copytree(ROOT / "leaderboards", root / "leaderboards")
    boards, links = find_boards(None, None, None, root / "leaderboards")
    write_files(files_of(boards, links), len(boards), root / "leaderboards")
    (root / "examples").symlink_to(ROOT / "examples")
    return root


@pytest.mark.slow
@pytest.mark.xdist_group("options")
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_a_help_text_works(world, monkeypatch, capsys, example):
    monkeypatch.chdir(world)
    monkeypatch.setenv("HOME", str(world / "home"))
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda _: True})())
    with watched(world / "runs"):
        monkeypatch.setattr(sys, "argv", words_of(example))
        with pytest.raises(SystemExit) as end:
            app.main()
    assert end.value.code == 0, capsys.readouterr()
