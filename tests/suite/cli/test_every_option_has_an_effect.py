"""Two values of every option of every command do not do the same; complete over all signatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer

from suite.cli import app
from tests.suite.cli.option_effects import EFFECTS
from tests.suite.cli.test_interface import commands_below
from tests.suite.cli.world import build, watched

# in one process, which trains the runs that options need
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("options")]

Seen = tuple[object, ...]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUITE_TRACKING", "off")
        patch.setenv("SUITE_HOME", "")
        return root, build(root)


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, ...], Seen]:
    """What each command line did, since many differ from the same one."""
    return {}


@pytest.fixture
def outcome(world, known, monkeypatch, capsys) -> Callable[..., Seen]:
    """What a command line does: its exit code, output, the files that it writes, and what reaches the stand-ins."""
    root, names = world

    def call(words: tuple[str, ...], *, again: bool = False) -> Seen:
        if words in known and not again:
            return known[words]
        threads = torch.get_num_threads()
        before = contents(root)
        with watched(root / "runs") as calls:
            monkeypatch.setattr("sys.argv", ["suite", *(word.format(**names) for word in words)])
            with pytest.raises(SystemExit) as end:
                app.main()
        torch.set_num_threads(threads)
        out, err = capsys.readouterr()
        written = {name: text for name, text in contents(root).items() if before.get(name) != text}
        remove(root, written)
        known[words] = (end.value.code, out, err, written, calls)
        return known[words]

    return call


def contents(root: Path) -> dict[str, bytes]:
    """The files that commands may write, without those of runs."""
    places = [*root.glob("*"), *root.glob("speed/*"), *(root / "runs").glob("*/forecast*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in places if path.is_file()}


def remove(root: Path, written: dict[str, bytes]) -> None:
    for name in written:
        (root / name).unlink()


def commands() -> dict[str, set[str]]:
    return commands_below(typer.main.get_command(app.app))


def pairs() -> list[object]:
    return [
        pytest.param(command, option, id=f"{command} {option}")
        for command, options in EFFECTS.items()
        for option in options
    ]


def test_every_option_of_every_command_has_two_command_lines():
    assert {name: set(options) for name, options in EFFECTS.items()} == commands()


@pytest.mark.parametrize(("command", "option"), pairs())
def test_two_values_of_an_option_do_not_do_the_same(outcome, command, option):
    effect, words = EFFECTS[command][option], tuple(command.split())
    first, second = outcome((*words, *effect.first)), outcome((*words, *effect.second))
    assert first != second
    codes = {first[0], second[0]}
    assert codes == {0, 2} if effect.refused else 2 not in codes, (first, second)


@pytest.mark.parametrize(("command", "option"), pairs())
def test_the_two_command_lines_differ_in_that_option_alone(command, option):
    effect = EFFECTS[command][option]
    first, second = [list(words) for words in (effect.first, effect.second)]
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    differing = {word for word in (*first, *second) if word.startswith("--")}
    assert differing <= {option, "--browser", "--no-browser"}
    assert len(first) <= 2
    assert len(second) <= 2


@pytest.mark.parametrize("command", [name for name in EFFECTS if name != "doctor"])  # which shows the free disk space
def test_a_command_line_does_the_same_again(outcome, command):
    """Otherwise two different ones could differ by chance."""
    effect = next(iter(EFFECTS[command].values()))
    words = (*command.split(), *effect.first)
    assert outcome(words) == outcome(words, again=True)
