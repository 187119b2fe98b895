"""What there is: tasks, mixers and a task's data, as plain values and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import Progress

import tasks
from backbones.mixers import registry
from backbones.mixers.base import Mixer
from backbones.mixers.errors import MixerError
from suite.cli.report.tables import out, show_rows
from suite.config.recipe import SCALES
from suite.console import err, say
from suite.models.resolve import resolve_data

MIXER_ROW = (
    "name",
    "paper",
    "summary",
    "causal",
    "bidirectional",
    "mixes_tokens",
    "constant_state",
    "needs",
    "pays_in_ffn",
    "domains",
    "options",
)


def describe_tasks() -> list[dict[str, Any]]:
    found = []
    for name in tasks.names():
        cls = tasks.get(name)
        primary = cls().primary
        data = "synthetic" if cls.domain == "recall" else "folder (--data-dir)" if cls.needs_data_dir else "embedded"
        found.append(
            {
                "name": name,
                "domain": cls.domain,
                "metric": primary.name,
                "higher_is_better": primary.higher_is_better,
                "data": data,
                "protocol": cls.protocol,
                "scales": list(SCALES),
                "summary": cls.summary,
            }
        )
    return found


def describe_mixers() -> list[dict[str, Any]]:
    """A row a mixer. One that cannot be loaded or built here is listed all the same, with the reason."""
    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            cls = registry.get(name)
            row, reason = _describe_mixer(cls), cls.obstacle()
        except MixerError as error:
            row, reason = dict.fromkeys(MIXER_ROW), " ".join(str(error).split())
        found.append({**row, "name": name, "origin": registry.origin(name), "available": not reason, "reason": reason})
    return found


def show_mixers(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the mixers; below it, a line for each reason why some of them are not available here."""
    show_rows(
        [row for row in rows if row["available"]],
        ("name", "paper", "causal", "bidirectional", "constant_state", "summary"),
    )
    missing: dict[str, list[str]] = {}
    for row in rows:
        if not row["available"]:
            missing.setdefault(row["reason"], []).append(row["name"])
    for reason, names in missing.items():
        out.print(f"[yellow]not available here[/]: {escape(', '.join(names))}: {escape(reason)}")


def describe_data(
    task: str, data_dir: Path | None, scale: str | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    made = tasks.get(task)(resolve_data(task, scale, sets), data_dir)
    info = made.info()
    return {
        "task": task,
        "source": info.source,
        "licence": info.licence,
        "splits": dict(info.splits),
        "unit": info.unit,
        "fingerprint": info.fingerprint,
        "embedded": info.embedded,
        "protocol": made.protocol,
        "notes": list(info.notes),
        **info.extra,
    }


def prepare_data(
    task: str, data_dir: Path | None, scale: str | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    made = tasks.get(task)(resolve_data(task, scale, sets), data_dir)
    say(made.prepare_note())
    with Progress(
        *Progress.get_default_columns(), console=err, disable=not err.is_terminal, transient=True
    ) as progress:
        bar = progress.add_task(f"preparing {task}", total=None)
        made.prepare(lambda done, total: progress.update(bar, completed=done, total=total))
    return {**describe_data(task, data_dir, scale, sets), "status": "ready"}


def _describe_mixer(cls: type[Mixer]) -> dict[str, Any]:
    can = cls.capabilities
    told = (
        "",
        cls.paper,
        cls.summary,
        can.causal,
        can.bidirectional,
        can.mixes_tokens,
        can.constant_state,
        sorted(can.needs),
        can.pays_in_ffn,
        [*(["language", "recall"] if can.causal else []), *(["vision", "forecasting"] if can.bidirectional else [])],
        sorted(cls.Config.model_fields),
    )
    return dict(zip(MIXER_ROW, told, strict=True))
