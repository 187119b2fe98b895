"""`suite verify`: checks entries as data, trains first steps or whole runs again, and writes badges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.cli.options import Json
from suite.cli.output import out, print_json
from suite.console import duration, err, say
from suite.errors import UserError

if TYPE_CHECKING:
    from suite.submissions.replay import Replayed
    from suite.submissions.reproduce import Reproduced
    from suite.submissions.reproducible import Row
    from suite.submissions.verify import Verified


def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A record, an entry, or a folder of entries.")],
    replay: Annotated[
        int, typer.Option("--replay", min=0, help="Train the first steps of N records, drawn at random, again.")
    ] = 0,
    reproduce: Annotated[
        int,
        typer.Option(
            "--reproduce",
            min=0,
            help="Train K seeds of each row, at least 3, again to the end and compare their mean. On another machine.",
        ),
    ] = 0,
    mixer: Annotated[
        list[str] | None,
        typer.Option("--mixer", help="With --reproduce: only rows of this mixer; repeatable.", show_default=False),
    ] = None,
    trust_source: Annotated[
        bool,
        typer.Option(
            "--trust-source", help="With --replay or --reproduce: run the mixers' files in the entry. Read them first."
        ),
    ] = False,
    badge: Annotated[
        bool, typer.Option("--badge", help="Maintainers: write what was checked to badges.json next to entries/.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Checks entries without running any code in them: hashes, recount, ranges, whole races. Names every fault, one per
    line; exit code 1 if there is one.

    `suite verify leaderboards`

    `suite verify leaderboards/entries/ada --replay 3`

    `suite verify leaderboards/entries/ada --reproduce 3 --mixer fem`
    """
    from suite.submissions import badges
    from suite.submissions.drawn import replay_some
    from suite.submissions.verify import verify as check

    _require_sense(replay, reproduce, mixer, trust_source)
    root = badges.folder_of(path) if badge else None
    found = check(path)
    replayed = replay_some(found, replay, trusted=trust_source)
    rows = _reproduce(found, reproduce, mixer or (), trust_source, badge) if reproduce else []
    _show(found, replayed, rows, as_json=as_json)
    if root and not found.faults:
        err.print(f"badges written to {badges.award(root, found, replayed, rows)}", soft_wrap=True)
    raise typer.Exit(1 if found.faults else 0)


def _require_sense(replay: int, reproduce: int, mixer: Sequence[str] | None, trust_source: bool) -> None:
    from suite.records.badges import LEAST_SEEDS

    if trust_source and not replay and not reproduce:
        raise UserError("--trust-source runs mixers for --replay N and --reproduce K; without them, nothing is run")
    if mixer and not reproduce:
        raise UserError("--mixer chooses rows for --reproduce K; without it, all records are verified")
    if 0 < reproduce < LEAST_SEEDS:
        raise UserError(f"--reproduce {reproduce}: a mean needs at least {LEAST_SEEDS} seeds")


def _reproduce(found: Verified, count: int, mixers: Sequence[str], trusted: bool, badge: bool) -> list[Reproduced]:
    """Trains rows again, and adds what is wrong to the faults. Ends the command where a signal stops a run."""
    from suite.submissions import reproduce as reproduction
    from suite.submissions import retraining
    from suite.submissions.faults import Fault
    from suite.submissions.reproducible import rows

    if found.faults:
        say("no row is trained again before these faults are fixed")
        return []
    if badge:
        _require_clean_code()
    able = _able(rows(found, count, trusted=trusted, mixers=mixers), mixers)
    for origin in sorted({o for each in able for o in each.origins if o in found.sources}):
        say(f"executing the mixer's file {found.sources[origin]} ({origin})")
    planned = [retraining.plan(each, count, found.sources) for each in able]
    runs = sum(2 * len(each.drawn) for each in planned)
    time = duration(retraining.seconds(planned))
    say(f"{runs} runs, about {time}: {count} seeds of {len(able)} row(s), each once more to calibrate rounding")
    try:
        done = [reproduction.reproduce(each, say) for each in planned]
    except retraining.Stopped as stopped:
        say("stopped; the same command continues where it was")
        raise typer.Exit(stopped.code) from None
    found.faults += [Fault(each.row.label, each.fault, "reproduced") for each in done if each.fault]
    return done


def _able(every: Sequence[Row], mixers: Sequence[str]) -> list[Row]:
    """The rows that can be trained again; the others are named. Raises UserError where there is none."""
    if not every:
        which = f" of {', '.join(mixers)}" if mixers else ""
        raise UserError(f"--reproduce: there is no row{which} here; give the folder of an entry with a whole race")
    refused = [f"{each.label} cannot be reproduced: {each.obstacle}" for each in every if each.obstacle]
    able = [each for each in every if not each.obstacle]
    if not able:
        more = f" (and {len(refused) - 1} more rows)" if len(refused) > 1 else ""
        raise UserError(refused[0] + more)
    for line in refused:
        say(line)
    return able


def _require_clean_code() -> None:
    from suite.records import provenance

    if provenance.code("", "").git_dirty:
        raise UserError("--reproduce with --badge needs the suite as it was committed; git status shows changed files")


def _show(found: Verified, replayed: dict[str, Replayed], rows: Sequence[Reproduced], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "records": len(found.records),
                "faults": [vars(fault) for fault in found.faults],
                "replayed": {name: vars(each) for name, each in replayed.items()},
                "reproduced": [_as_json(each) for each in rows],
            }
        )
        return
    for fault in found.faults:
        out.print(fault.line)
    for name, each in replayed.items():
        if not each.fault:
            out.print(f"{name}: {each.steps} losses within {each.deviation:.1g} ({each.tolerance:.1g} allowed)")
    for row in rows:
        if not row.fault:
            out.print(row.line)
    verdict = f"{len(found.faults)} faults" if found.faults else "no fault"
    reproduced = f", {len(rows)} rows reproduced" if rows else ""
    err.print(f"{len(found.records)} records verified, {len(replayed)} replayed{reproduced}: {verdict}")


def _as_json(row: Reproduced) -> dict[str, Any]:
    figures = row.figures.model_dump(mode="json") | {"difference": row.figures.difference} if row.figures else {}
    return {"row": row.row.label, "records": list(row.records), "fault": row.fault, **figures}
