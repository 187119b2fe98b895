"""`suite list tasks` and `suite list mixers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suite.cli import options as opt
from suite.cli.output import out, print_json, print_rows
from suite.console import marked

if TYPE_CHECKING:
    from backbones.mixers.base import Mixer

TASK_FIELDS = ("name", "domain", "metric", "higher_is_better", "data", "protocol", "scales", "summary")
MIXER_FIELDS = (
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


def list_tasks(as_json: opt.Json = False) -> None:
    """Lists the tasks with their domain and primary metric.

    `suite list tasks`
    """
    found = describe_tasks()
    print_json(found) if as_json else print_available(found, ("name", "domain", "metric", "data", "summary"))


def list_mixers(as_json: opt.Json = False) -> None:
    """Lists the mixers with their paper and capabilities.

    `suite list mixers --json`
    """
    found = describe_mixers()
    columns = ("name", "paper", "causal", "bidirectional", "constant_state", "summary")
    print_json(found) if as_json else print_available(found, columns)


def describe_tasks() -> list[dict[str, Any]]:
    """One row per task. A package's task that cannot be loaded is listed too, with the reason."""
    import tasks
    from suite.errors import UserError
    from tasks.base import DataError

    found: list[dict[str, Any]] = []
    for name in tasks.names():
        try:
            row, reason = _describe_task(name), ""
        except (DataError, UserError) as error:
            row, reason = dict.fromkeys(TASK_FIELDS), str(error)
        found.append({**row, "name": name, "origin": tasks.origin(name), "available": not reason, "reason": reason})
    return found


def _describe_task(name: str) -> dict[str, Any]:
    import tasks
    from suite.config.recipe import scales_of

    cls = tasks.get(name)
    primary = cls().primary
    data = "synthetic" if cls.synthetic else "folder (--data-dir)" if cls.needs_data_dir else "embedded"
    values = (
        name,
        cls.domain,
        primary.name,
        primary.higher_is_better,
        data,
        cls.protocol,
        list(scales_of(name)),
        cls.summary,
    )
    return dict(zip(TASK_FIELDS, values, strict=True))


def describe_mixers() -> list[dict[str, Any]]:
    """One row per mixer. A mixer that cannot be loaded or built here is listed too, with the reason."""
    from backbones.mixers import registry
    from backbones.mixers.errors import MixerError

    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            cls = registry.get(name)
            row, reason = _describe_mixer(cls), cls.obstacle()
        except MixerError as error:
            row, reason = dict.fromkeys(MIXER_FIELDS), " ".join(str(error).split())
        found.append({**row, "name": name, "origin": registry.origin(name), "available": not reason, "reason": reason})
    return found


def print_available(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Prints a table of the available rows, then one line per reason why others are not available here."""
    print_rows([row for row in rows if row["available"]], columns)
    missing: dict[str, list[str]] = {}
    for row in rows:
        if not row["available"]:
            missing.setdefault(row["reason"], []).append(row["name"])
    for reason, names in missing.items():
        out.print(marked("[yellow]not available here[/]: {}: {}", ", ".join(names), reason))


def _describe_mixer(cls: type[Mixer]) -> dict[str, Any]:
    import tasks

    can = cls.capabilities
    values = (
        "",
        cls.paper,
        cls.summary,
        can.causal,
        can.bidirectional,
        can.mixes_tokens,
        can.constant_state,
        sorted(can.needs),
        can.pays_in_ffn,
        [
            *(tasks.CAUSAL_DOMAINS if can.causal else ()),
            *(d for d in tasks.DOMAINS if d not in tasks.CAUSAL_DOMAINS and can.bidirectional),
        ],
        sorted(cls.Config.model_fields),
    )
    return dict(zip(MIXER_FIELDS, values, strict=True))
