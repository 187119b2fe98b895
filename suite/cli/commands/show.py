"""`suite show`: a run's record, or the options that a task and a mixer resolve to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from suite.cli import options as opt
from suite.cli.commands.budget import print_budget
from suite.cli.described import described_request
from suite.cli.output import out, print_json, print_mapping
from suite.console import marked
from suite.errors import UserError

if TYPE_CHECKING:
    from suite.config.run_config import RunConfig
    from suite.models.certificate import Certificate
    from suite.models.resolve import Resolved

#: The fields of a record that are printed; the metrics follow.
FIELDS = (
    "id",
    "status",
    "error",
    "task",
    "mixer",
    "scale",
    "seed",
    "created",
    "identity",
    "selection",
    "timing",
    "hardware",
)


def show(
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="A run: any unique part of its id, its folder, or latest. Or use --task and --mixer."
        ),
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
    """Shows a run's record; or, before any run, every option that a task and a mixer resolve to. Needs no data.

    `suite show --task sotu --mixer fem --set lr=3e-3`
    """
    if run_id:
        if any((task, mixer, scale, horizon, track, hybrid, set_, recipe)):
            raise UserError(
                f"run {run_id!r} has its own config: give a run, or --task and --mixer with their options, not both"
            )
        found = describe_run(run_id)
        print_json(found) if as_json else print_run(found)
        return
    given = {"task": task, "mixer": mixer, "scale": scale, "horizon": horizon, "track": track, "hybrid": hybrid}
    described = described_request("show", {**given, "sets": set_ or [], "recipe": recipe}, describe_config)
    print_json(described["shown"]) if as_json else print_config(described)


def describe_config(resolved: Resolved) -> dict[str, Any]:
    """A config as `--json` shows it, and its options one by one: name, value and meaning."""
    solved, certificate = _solve(resolved)
    identity = {"identity": solved.identity, "group": solved.group}
    options = [
        (f"{section}.{name}", str(getattr(model, name)), described.description or "")
        for section, model in (
            ("data", solved.data),
            ("model", solved.model),
            ("mixer", solved.mixer_options),
            ("train", solved.train),
        )
        for name, described in type(model).model_fields.items()
    ]
    shown = {"config": solved.canonical(), **identity, "certificate": certificate.model_dump(mode="json")}
    return {"shown": shown, "options": options}


def print_config(described: Mapping[str, Any]) -> None:
    """Prints every option with its value and meaning: what `--set` and a recipe may change."""
    shown, config = described["shown"], described["shown"]["config"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("option", "value", "meaning"):
        table.add_column(column, no_wrap=column == "option")
    for option in described["options"]:
        table.add_row(*option)
    title = f"{config['task']} · {config['mixer']} · {config['scale']} · seed {config['seed']}"
    out.print(marked("[bold]{}[/]  identity {}", title, shown["identity"][:12]))
    out.print(table)
    print_budget(shown["certificate"])


def describe_run(run: str) -> dict[str, Any]:
    """The record of a run; of one without a record, its config."""
    from suite.records import record, runs_folder

    folder = runs_folder.find_run(run)
    if (folder / record.NAME).is_file():
        return record.read(folder / record.NAME).model_dump(mode="json", by_alias=True)
    return {"id": folder.name, "status": "unfinished", **runs_folder.read_run(folder)}


def print_run(found: Mapping[str, Any]) -> None:
    from suite.config.run_config import OWN_ORIGINS

    metrics = {
        f"{split} metrics": {name: f"{value:.5g}" for name, value in values.items()}
        for split, values in (found.get("metrics") or {}).items()
    }
    print_mapping({name: found[name] for name in FIELDS if found.get(name) is not None} | metrics)
    if "certificate" in found:
        origin = found["code"]["mixer_origin"]  # a record is read without importing its mixer
        print_budget(found["certificate"], own=origin in OWN_ORIGINS)


def _solve(resolved: Resolved) -> tuple[RunConfig, Certificate]:
    """The config with the mixer's solved options, and its certificate."""
    import tasks

    config, candidate = resolved.config, resolved.candidate
    spec = tasks.get(config.task)(config.data).spec
    plan = candidate.plan(config, spec)
    return config.model_copy(update={"mixer_options": plan.mixer_options}), candidate.certify(config, spec, plan)
