"""`suite enter` and `suite submit`: from a mixer's file to an entry for the boards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json
from suite.console import err, marked
from suite.errors import UserError

if TYPE_CHECKING:
    from suite.submissions.entry import RaceSummary
    from suite.submissions.submit import Submitted
    from suite.sweeps.entrant import Entrant

Author = Annotated[str, typer.Option("--author", help="Name of the entry: lower-case letters, digits and '-'.")]
Notes = Annotated[
    Path | None, typer.Option("--notes", help="Text for readers, at most 16 kB.", dir_okay=False, show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", help="Folder of the entry.", show_default="leaderboards/entries/AUTHOR where that exists, or AUTHOR"
    ),
]


def submit(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="A run, or latest (with all runs of its race), or files of records."),
    ],
    author: Author,
    notes: Notes = None,
    output: Output = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Submit races that have not ended too; their rows get no rank.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Writes an entry for the boards: the records of whole races, and the source of a mixer of your own.

    `suite submit 3f2a --author ada --notes notes.md`
    """
    from suite.submissions.submit import submit as write

    _show_submitted(write(runs, author=author, notes=notes, folder=output, unfinished=unfinished), as_json=as_json)


def enter(
    mixer: Annotated[str, typer.Argument(metavar="MIXER", help="path/to/file.py:Class, or a registered mixer.")],
    task: opt.Task = None,
    scale: opt.RaceScale = "board",
    set_: opt.Set = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    jobs: opt.Jobs = 1,
    threads: opt.JobThreads = None,
    author: Author = "draft",
    notes: Notes = None,
    output: Output = None,
    records: opt.Records = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start the race without asking.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Enters a mixer for a board: contract, budget, the race, a draft entry, and its place among the other rows.

    Runs that have ended are never repeated: the same command continues where it was stopped.

    `suite enter examples/moving_average.py:MovingAverage --task sotu --records leaderboards`
    """
    from suite.cli.commands import sweep
    from suite.submissions.submit import entry_folder, require_rankable
    from suite.submissions.submit import submit as write
    from suite.submissions.verify import verify as check
    from suite.sweeps.choice import Options, executor
    from suite.sweeps.plan import Wanted, entrants

    if not task:
        raise UserError("no task given: --task NAME (suite list tasks)")
    output = entry_folder(author, notes, output, mixer)  # a mistake is not found after hours of training
    require_rankable(task)
    _require_contract(mixer)
    found, _ = entrants(Wanted((task,), (mixer,), scale, tuple(set_ or ()), data_dir=data_dir))
    sweep.adopt(found)
    sweep.show_plan(found, [], jobs, as_json=False)
    _confirm(found, yes=yes)
    _, code = sweep.race(found, executor(Options(jobs=jobs, threads=threads, device=device)))
    if code:
        raise typer.Exit(code)
    submitted = write(_ids(found), author=author, notes=notes, folder=output)
    verified = check(submitted.folder)
    for fault in verified.faults:
        err.print(marked("[red]{}[/]", fault.line), soft_wrap=True)
    _show_place(submitted, found[0], records, as_json=as_json)
    raise typer.Exit(1 if verified.faults else 0)


def _require_contract(mixer: str) -> None:
    """Stops at the first check of the contract that fails, with its smallest input."""
    from backbones.baselines.base import PREFIX
    from backbones.contract import run as contract
    from suite.cli.commands.check import keep_outcome

    if mixer.startswith(PREFIX) and ".py:" not in mixer:
        raise UserError(f"{mixer!r} is a baseline, which has no race and no rank; run it with suite run")
    checks = 0
    for result in contract.each_check(mixer):
        checks += result.status == "ok"
        if result.status == "failed":
            direction = "causal" if result.causal else "not causal"
            text = f"{result.sentence}: {direction}: {result.reason}; shown by {result.shown_by or 'building it'}"
            err.print(marked("[red]contract:[/] {} fails. {}", result.check, text), soft_wrap=True)
            keep_outcome(mixer, held=False, whole=False)
            raise typer.Exit(1)
    keep_outcome(mixer, held=True, whole=False)
    err.print(f"contract: {checks} checks hold")


def _confirm(found: Sequence[Entrant], *, yes: bool) -> None:
    if yes or not any(each.state().missing for each in found):
        return
    if not sys.stdin.isatty():
        raise UserError("the race is not started without a confirmation, and there is no terminal to ask: add --yes")
    typer.confirm("start the race?", abort=True, err=True)


def _ids(found: Sequence[Entrant]) -> list[str]:
    """One run of each race: the others follow from it."""
    from suite.records.collection import read_all

    ids = {made.identity: made.id for made in read_all().records}
    own = ([each.config(rate, seed).identity for rate, seed in each.scores] for each in found)
    return [made for race in own for made in [ids[each] for each in race if each in ids][:1]]


def _show_submitted(made: Submitted, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(made))
        return
    for race in made.races:
        out.print(f"{_words(race)}")
    err.print(f"{made.records} records ({made.new} new) in {made.folder}; check it: suite verify {made.folder}")


def _as_json(made: Submitted) -> dict[str, Any]:
    races = [race.model_dump(mode="json") for race in made.races]
    return {"folder": str(made.folder), "records": made.records, "new": made.new, "races": races}


def _words(race: RaceSummary) -> str:
    from suite.submissions.entry import summary

    return summary(race.model_dump())


def _show_place(made: Submitted, entrant: Entrant, folder: Path | None, *, as_json: bool) -> None:
    from suite.boards import board
    from suite.boards.plain import plain
    from suite.cli.commands.boards.leaderboard import print_boards
    from suite.records.collection import read_all, read_published
    from suite.records.schema import Record

    every: dict[str, Record] = {each.hash: each for each in (read_published(folder)[0].records if folder else ())}
    every |= {each.hash: each for each in read_all().records}
    boards = board.boards(every.values(), task=entrant.base.task, scale=entrant.base.scale)
    own = [each for each in boards if any(row.first.group == entrant.base.group for row in each.rows)]
    if as_json:
        print_json({"entry": _as_json(made), "boards": [plain(each) for each in own]})
        return
    print_boards(own)
    err.print(
        f"draft entry: {made.folder} ({made.records} records); next: CONTRIBUTING, 'Put your mixer on the board'",
        soft_wrap=True,
    )
