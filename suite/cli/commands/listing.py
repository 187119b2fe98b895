"""`suite list tasks` and `suite list mixers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from suite.cli import options as opt
from suite.cli.output import out, print_json, print_rows

if TYPE_CHECKING:
    from backbones.mixers.base import Mixer

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
    print_json(found) if as_json else print_rows(found, ("name", "domain", "metric", "data", "summary"))


def list_mixers(as_json: opt.Json = False) -> None:
    """Lists the mixers with their paper and capabilities.

    `suite list mixers --json`
    """
    found = describe_mixers()
    print_json(found) if as_json else print_mixers(found)


def describe_tasks() -> list[dict[str, Any]]:
    import tasks
    from suite.config.recipe import SCALES

    found = []
    for name in tasks.names():
        cls = tasks.get(name)
        primary = cls().primary
        data = "synthetic" if cls.synthetic else "folder (--data-dir)" if cls.needs_data_dir else "embedded"
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


def print_mixers(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table of the available mixers, then one line per reason why others are not available here."""
    print_rows(
        [row for row in rows if row["available"]],
        ("name", "paper", "causal", "bidirectional", "constant_state", "summary"),
    )
    missing: dict[str, list[str]] = {}
    for row in rows:
        if not row["available"]:
            missing.setdefault(row["reason"], []).append(row["name"])
    for reason, names in missing.items():
        out.print(f"[yellow]not available here[/]: {escape(', '.join(names))}: {escape(reason)}")


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
