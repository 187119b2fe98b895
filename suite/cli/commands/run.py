"""`suite run`: trains, tests and records one run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from suite.cli import options as opt
from suite.cli.commands.boards.leaderboard import find_boards, print_boards
from suite.cli.output import out, print_json
from suite.console import err, format_metric, marked
from suite.errors import UserError

if TYPE_CHECKING:
    from suite.records.schema import Record
    from suite.training.outcome import Outcome

EXAMPLES = """
**Examples**

`suite run --task fashion-mnist --mixer fem`

`suite run --task household-power --mixer softmax --horizon 192 --seed 1 --set lr=5e-4`

`suite run --task imagenet100 --mixer fem --data-dir ~/imagenet`

`suite leaderboard --task fashion-mnist`
"""


def run(
    task: opt.Task = None,
    mixer: opt.Mixer = None,
    scale: opt.Scale = None,
    seed: opt.Seed = None,
    steps: opt.Steps = None,
    horizon: opt.Horizon = None,
    track: opt.Track = None,
    hybrid: opt.Hybrid = None,
    set_: opt.Set = None,
    recipe: opt.Recipe = None,
    data_dir: opt.DataDir = None,
    verify_data: opt.VerifyData = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    workers: opt.Workers = None,
    deterministic: opt.Deterministic = False,
    resume: opt.Resume = None,
    force: opt.Force = False,
    unmatched: opt.Unmatched = False,
    skip_variant_layers: opt.Skip = False,
    as_json: opt.Json = False,
) -> None:
    """Trains a budget-matched mixer on a task, tests the checkpoint that validation selected, and writes a record."""
    commanded = time.monotonic()
    chosen: dict[str, Any] = {
        "task": task,
        "mixer": mixer,
        "scale": scale,
        "seed": seed,
        "steps": steps,
        "horizon": horizon,
        "track": track,
        "hybrid": hybrid,
        "sets": set_ or [],
        "recipe": recipe,
        "unmatched": unmatched,
        "skip_variant_layers": skip_variant_layers,
    }
    from suite.training import processors
    from suite.training.deterministic import mode
    from tasks.storage import verified

    _send_backlog()

    with verified.hashing_all(verify_data), processors.using(threads, workers), mode.using(deterministic):
        place = {"data_dir": data_dir, "device": device, "commanded": commanded}
        outcome = _outcome(chosen, seed, place, resume=resume, force=force)
    if as_json:
        print_json(outcome.record.sealed().model_dump(mode="json", by_alias=True))
    report_run(outcome, quiet=as_json)
    raise typer.Exit(outcome.exit_code)


def _outcome(
    chosen: dict[str, Any], seed: int | None, place: dict[str, Any], *, resume: str | None, force: bool
) -> Outcome:
    """Starts the chosen run, or resumes a run. `place`: where and since when, for either."""
    if resume == "auto":
        return _resume_auto(chosen, seed, place)
    if resume:
        from suite.training.run import resume as resume_run

        if any(chosen.values()) or seed is not None:
            raise UserError(
                f"--resume {resume} uses the config of that run; drop the other options (except --data-dir, "
                "--verify-data, --device, --threads, --workers, --deterministic)"
            )
        return resume_run(resume, **place)
    from suite.models.effects import refuse_unread_folder
    from suite.models.resolve import resolve_run
    from suite.training.run import start

    resolved = resolve_run(**chosen)
    refuse_unread_folder(resolved.config.task, place["data_dir"])
    return start(resolved.config, candidate=resolved.candidate, again=force, **place)


def _send_backlog() -> None:
    from suite.records import runs_folder
    from suite.tracking import backlog

    backlog.send_in_background(runs_folder.home())


def _resume_auto(chosen: dict[str, Any], seed: int | None, place: dict[str, Any]) -> Outcome:
    from suite.models.resolve import resolve_run
    from suite.training.run import resume_newest

    if not any(chosen.values()) and seed is None:
        return resume_newest(None, **place)
    resolved = resolve_run(**chosen)
    return resume_newest(resolved.config, candidate=resolved.candidate, **place)


def report_run(outcome: Outcome, *, quiet: bool) -> None:
    """Prints a finished run's result and its board, or on stderr what went wrong; `quiet` leaves out the result."""
    from suite.records import runs_folder
    from suite.training import checkpoint

    record = outcome.record
    if outcome.exit_code:
        resumable = record.status in ("interrupted", "failed") and bool(
            checkpoint.files(runs_folder.home() / record.id)
        )
        advice = f"; resume it with: suite run --resume {record.id}" if resumable else ""
        err.print(marked("[red]{}[/]: {}", record.status, f"{record.error or ''}{advice}"), soft_wrap=True)
    elif not quiet:
        _print_result(record)
    if not quiet and outcome.path:
        out.print(f"record: {outcome.path}")


def _print_result(record: Record) -> None:
    from suite.boards.board import primary_metric

    metric, selection = primary_metric(record), record.selection
    assert selection is not None
    assert record.timing is not None
    value = format_metric(metric, record.metrics["test"][metric.name])
    out.print(marked("[bold]{} · {} · {} · seed {}[/]", record.task, record.mixer, record.scale, record.seed))
    out.print(
        f"test {metric.name} {value}, checkpoint of step {selection.step} selected on validation; "
        f"{record.timing.wall_s:.0f} s"
    )
    if "test_skip" in record.metrics:
        skipped = format_metric(metric, record.metrics["test_skip"][metric.name])
        out.print(f"without the layers that are not softmax: test {metric.name} {skipped}")
    boards, _ = find_boards(record.task, None, record.scale)
    own = [b for b in boards if any(record.id == ranked.id for row in b.rows for ranked in row.records)]
    if own:
        print_boards(own)
