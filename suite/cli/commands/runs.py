"""A run from its options to its record: what would run, what it costs, and running it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from suite.cli import options as opt
from suite.cli.commands.output import emit


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
    device: opt.Device = "auto",
    resume: opt.Resume = None,
    unmatched: opt.Unmatched = False,
    skip_variant_layers: opt.Skip = False,
    as_json: opt.Json = False,
) -> None:
    """Trains a budget-matched mixer on a task, tests the checkpoint that validation chose, and writes its record."""
    from suite.cli.report.runs import report_run

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
    if resume:
        from suite.errors import UserError
        from suite.training.run import resume as resume_run

        if any(chosen.values()) or seed is not None:
            raise UserError(
                "--resume goes on with the run's own config; drop the other options (--data-dir and --device may stay)"
            )
        outcome = resume_run(resume, data_dir=data_dir, device=device)
    else:
        from suite.models.resolve import resolve
        from suite.training.run import start

        outcome = start(resolve(**chosen), data_dir=data_dir, device=device)
    if as_json:
        emit(outcome.record.sealed().model_dump(mode="json", by_alias=True))
    report_run(outcome, quiet=as_json)
    raise typer.Exit(outcome.exit_code)


def show(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's id or folder; or name a task and a mixer.")
    ] = None,
    task: opt.Task = None,
    mixer: opt.Mixer = None,
    scale: opt.Scale = None,
    horizon: opt.Horizon = None,
    track: opt.Track = None,
    hybrid: opt.Hybrid = None,
    set_: opt.Set = None,
    recipe: opt.Recipe = None,
    as_json: opt.Json = False,
) -> None:
    """Shows a run's record; or, before any run, every option a task and a mixer resolve to. Needs no data.

    `suite show --task sotu --mixer fem --set lr=3e-3`
    """
    from suite.cli.report import runs
    from suite.errors import UserError

    if run_id:
        if any((task, mixer, scale, horizon, track, hybrid, set_, recipe)):
            raise UserError("a run has its own config: name a run, or a task and a mixer with their options, not both")
        found = runs.describe_run(run_id)
        emit(found) if as_json else runs.show_run(found)
        return
    from suite.models.resolve import resolve

    config = resolve(
        task=task, mixer=mixer, scale=scale, horizon=horizon, track=track, hybrid=hybrid, sets=set_ or [], recipe=recipe
    )
    emit(runs.describe_config(config)) if as_json else runs.show_config(config)


def budget(
    task: opt.Task = None,
    mixer: opt.Mixer = None,
    scale: opt.Scale = None,
    horizon: opt.Horizon = None,
    track: opt.Track = None,
    hybrid: opt.Hybrid = None,
    set_: opt.Set = None,
    recipe: opt.Recipe = None,
    as_json: opt.Json = False,
) -> None:
    """Sizes a mixer for a task and counts it beside softmax. Needs no data. Exit code 1 when it is not matched.

    `suite budget --task imagenet100 --mixer fem --scale paper --json`
    """
    from suite.cli.report import runs
    from suite.models.resolve import resolve

    config = resolve(
        task=task, mixer=mixer, scale=scale, horizon=horizon, track=track, hybrid=hybrid, sets=set_ or [], recipe=recipe
    )
    found = runs.describe_budget(config)
    emit(found) if as_json else runs.show_budget(found)
    raise typer.Exit(0 if found["matched"] else 1)
