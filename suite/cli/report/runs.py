"""A run before, at and after its end: its options, its cost, its result, as plain values and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

import tasks
from suite.boards import board
from suite.cli.report.results import find_boards, show_boards
from suite.cli.report.tables import out, show_mapping
from suite.config.run_config import RunConfig
from suite.console import err, format_metric
from suite.models import budget
from suite.records import record, runs_folder
from suite.training.checkpoint import NAME as CHECKPOINT
from suite.training.run import Outcome


def describe_config(config: RunConfig) -> dict[str, Any]:
    solved, certificate = _resolved(config)
    identity = {"identity": solved.identity, "group": solved.group}
    return {"config": solved.canonical(), **identity, "certificate": certificate.model_dump(mode="json")}


def show_config(config: RunConfig) -> None:
    """Every option with its value and meaning: what `--set` and a recipe may change."""
    solved, certificate = _resolved(config)
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("option", "value", "meaning"):
        made.add_column(column, no_wrap=column == "option")
    for section, model in (
        ("data", solved.data),
        ("model", solved.model),
        ("mixer", solved.mixer_options),
        ("train", solved.train),
    ):
        for name, described in type(model).model_fields.items():
            made.add_row(f"{section}.{name}", str(getattr(model, name)), described.description or "")
    out.print(
        f"[bold]{solved.task} · {solved.mixer} · {solved.scale} · seed {solved.seed}[/]  identity "
        f"{solved.identity[:12]}"
    )
    out.print(made)
    show_budget(certificate.model_dump(mode="json"))


def describe_budget(config: RunConfig) -> dict[str, Any]:
    found = _resolved(config)[1].model_dump(mode="json")
    if not found["matched"]:
        found["nearest_fit"] = budget.nearest_fit(config, tasks.get(config.task)(config.data).spec)
    return found


def show_budget(found: Mapping[str, Any]) -> None:
    made = Table(
        title=f"{found['task']} · {found['mixer']} · {found['scale']}", title_justify="left", header_style="bold"
    )
    for column in ("what", found["mixer"], "softmax reference", "ratio"):
        made.add_column(column, justify="left" if column == "what" else "right")
    pairs = [
        ("parameters without embeddings and head", "parameters", "reference_parameters"),
        ("parameters a mixer layer", "mixer_parameters", "reference_mixer_parameters"),
        (f"forward FLOPs a {found['flops_unit']}", "flops", "reference_flops"),
        (f"decoding state at {found['length']} tokens, bytes", "state_bytes", "reference_state_bytes"),
        ("feed-forward width", "ffn_width", "reference_ffn_width"),
    ]
    for label, own, reference in pairs:
        ratio = f"{found[own] / found[reference]:.4f}" if found[reference] else "–"
        made.add_row(label, f"{found[own]:,}", f"{found[reference]:,}", ratio)
    out.print(made)
    options = ", ".join(f"{k}={v}" for k, v in found["mixer_options"].items())
    out.print(f"mixer options: {options}")
    out.print("[green]matched[/]" if found["matched"] else f"[red]not matched[/]: {'; '.join(found['reasons'])}")
    if found.get("nearest_fit"):
        out.print(f"what fits: {found['nearest_fit']}")


def describe_run(run: str) -> dict[str, Any]:
    folder = runs_folder.find_run(run)
    if (folder / record.NAME).is_file():
        return record.read(folder / record.NAME).model_dump(mode="json", by_alias=True)
    return {"id": folder.name, "status": "unfinished", **runs_folder.read_run(folder)}


def show_run(found: Mapping[str, Any]) -> None:
    keys = (
        "id",
        "status",
        "error",
        "task",
        "mixer",
        "scale",
        "seed",
        "created",
        "identity",
        "metrics",
        "selection",
        "timing",
        "hardware",
    )
    flat = {key: found[key] for key in keys if found.get(key) is not None}
    metrics = flat.pop("metrics", {})
    show_mapping(
        {
            **flat,
            **{f"{split} metrics": {k: f"{v:.5g}" for k, v in values.items()} for split, values in metrics.items()},
        }
    )
    if "certificate" in found:
        show_budget(found["certificate"])


def report_run(outcome: Outcome, *, quiet: bool) -> None:
    """After a run: its result and where it stands, or what went wrong."""
    made = outcome.record
    if outcome.exit_code:
        can_go_on = made.status in ("interrupted", "failed") and (runs_folder.home() / made.id / CHECKPOINT).is_file()
        advice = f"; go on with: suite run --resume {made.id}" if can_go_on else ""
        err.print(f"[red]{made.status}[/]: {escape(made.error or '')}{advice}", soft_wrap=True)
    elif not quiet:
        metric = board.primary_metric(made)
        figure, selection = format_metric(metric, made.metrics["test"][metric.name]), made.selection
        assert selection is not None
        assert made.timing is not None
        out.print(f"[bold]{made.task} · {made.mixer} · {made.scale} · seed {made.seed}[/]")
        out.print(
            f"test {metric.name} {figure}, checkpoint of step {selection.step} chosen on validation; "
            f"{made.timing.wall_s:.0f} s"
        )
        if "test_skip" in made.metrics:
            skipped = format_metric(metric, made.metrics["test_skip"][metric.name])
            out.print(f"without the layers that are not softmax: test {metric.name} {skipped}")
        one = [
            b
            for b in find_boards(made.task, None, made.scale)
            if any(made.id == r.id for row in b.rows for r in row.records)
        ]
        if one:
            show_boards(one, as_markdown=False)
    if not quiet and outcome.path:
        out.print(f"record: {escape(str(outcome.path))}")


def _resolved(config: RunConfig) -> tuple[RunConfig, budget.Certificate]:
    spec = tasks.get(config.task)(config.data).spec
    plan = budget.solve(config, spec)
    return config.model_copy(update={"mixer_options": plan.mixer_options}), budget.certify(config, spec, plan)
