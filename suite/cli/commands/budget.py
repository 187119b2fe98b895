"""`suite budget`: the size and cost of a mixer on a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from suite.cli import options as opt
from suite.cli.described import described_request
from suite.cli.output import out, print_json
from suite.console import marked

if TYPE_CHECKING:
    from suite.models.resolve import Resolved


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
    """Sizes a mixer for a task and compares its cost with softmax. Needs no data. Exit code 1 if it is not matched.

    `suite budget --task imagenet100 --mixer fem --scale paper --json`
    """
    given = {"task": task, "mixer": mixer, "scale": scale, "horizon": horizon, "track": track, "hybrid": hybrid}
    found = described_request("budget", {**given, "sets": set_ or [], "recipe": recipe}, describe_budget)
    print_json(found) if as_json else print_budget(found)
    raise typer.Exit(0 if found["matched"] else 1)


def describe_budget(resolved: Resolved) -> dict[str, Any]:
    """The certificate of a run; for one that is not matched, also the nearest options that are."""
    import tasks

    config, candidate = resolved.config, resolved.candidate
    spec = tasks.get(config.task)(config.data).spec
    found = candidate.certify(config, spec, candidate.plan(config, spec)).model_dump(mode="json")
    if not found["matched"]:
        found["nearest_fit"] = candidate.nearest_fit(config, spec)
    return found


def print_budget(found: Mapping[str, Any], *, own: bool = False) -> None:
    """Prints a certificate as a table: the mixer, the softmax reference and their ratio.

    Args:
        found: the certificate's fields.
        own: whether the mixer is known to be one of the suite's, whose FLOPs its tests verify. (Old records do not say
            whether they are verified.)
    """
    verified: bool | None = found.get("flops_verified", own or None)
    title = f"{found['task']} · {found['mixer']} · {found['scale']}"
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("", found["mixer"], "softmax reference", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    unverified = "" if verified else " (unverified)"
    pairs = [
        ("parameters without embeddings and head", "parameters", "reference_parameters"),
        ("parameters per mixer layer", "mixer_parameters", "reference_mixer_parameters"),
        (f"forward FLOPs per {found['flops_unit']}{unverified}", "flops", "reference_flops"),
        (f"decoding state at {found['length']} tokens, bytes", "state_bytes", "reference_state_bytes"),
        ("feed-forward width", "ffn_width", "reference_ffn_width"),
    ]
    for label, model, reference in pairs:
        ratio = f"{found[model] / found[reference]:.4f}" if found[reference] else "–"
        table.add_row(label, f"{found[model]:,}", f"{found[reference]:,}", ratio)
    out.print(table)
    if unverified:
        why = "the record is older than that field" if verified is None else "the mixer has no plain_forward to compare"
        out.print(f"FLOPs are unverified: {why}")
    options = ", ".join(f"{k}={v}" for k, v in found["mixer_options"].items())
    out.print(f"mixer options: {options}")
    if found["matched"]:
        out.print(marked("[green]matched[/]"))
    else:
        out.print(marked("[red]not matched[/]: {}", "; ".join(found["reasons"])))
    if found.get("nearest_fit"):
        out.print(f"nearest options that fit: {found['nearest_fit']}")
