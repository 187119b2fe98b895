"""Runs the mixer contract on one mixer and tells what holds: the library behind `suite check` and the contract tests.

    results = run_checks("fem")                       # a registered name, path/file.py:Class, or a class
    print(render(results)); failed = [r for r in results if r.status == "failed"]

A mixer may offer its plain form, a slow and obvious one made of matrix products and loops, as a method
`plain_forward(x_BTD, context)`: the contract then counts its FLOPs with PyTorch's counter and compares `forward` with
it. The suite's own tests hand theirs over as `plain`, since the obvious forms of the built-ins live there. Without one
those two checks are reported as not applicable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from backbones.contract import costs, flow, form, gradients
from backbones.contract.probe import (
    CPU,
    REGISTERED,
    Check,
    Figure,
    NotApplicableError,
    PlainForm,
    Probe,
    ViolationError,
)
from backbones.mixers.base import Context, Mixer
from backbones.mixers.errors import MixerError
from backbones.mixers.registry import get

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CHECKS", "Check", "CheckResult", "as_json", "plain_form", "render", "run_check", "run_checks"]

Status = Literal["ok", "not applicable", "failed"]
_ORDER = tuple(module.__name__ for module in (form, flow, costs, gradients))
CHECKS: tuple[Check, ...] = tuple(sorted(REGISTERED, key=lambda c: _ORDER.index(c.function.__module__)))
"""The whole contract, in the order of the table."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found, in one direction. `setting` is the smallest input tried that shows the failure, and its
    figures.
    """

    check: str
    sentence: str
    causal: bool
    status: Status
    reason: str = ""
    setting: tuple[tuple[str, Figure], ...] = ()

    @property
    def shown_by(self) -> str:
        """The setting in words: `B=2, T=7, D=32, change=0.031`."""
        return ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.setting)


def plain_form(cls: type[Mixer]) -> PlainForm | None:
    """The plain form that a mixer's own class offers."""
    offered: Callable[[Any, Tensor, Context], Tensor] | None = getattr(cls, "plain_forward", None)
    return offered


def pick_device(cls: type[Mixer], name: str) -> torch.device:
    """The CPU, or a GPU for a mixer that runs on nothing else. Raises MixerError where it cannot run here."""
    if not cls.obstacle(CPU):
        return CPU
    if torch.cuda.is_available() and not cls.obstacle(torch.device("cuda")):
        return torch.device("cuda")
    raise MixerError(f"mixer {name!r} cannot run here: {cls.obstacle(CPU)}")


def run_check(
    check: Check, cls: type[Mixer], causal: bool, plain: PlainForm | None = None, device: torch.device = CPU
) -> CheckResult:
    """One check in one direction. Whatever the mixer raises is a failure of the check; torch's global generator is left
    as it was.
    """
    probe = Probe(cls, causal, plain or plain_form(cls), device)
    status: Status = "ok"
    reason = ""
    if not (cls.capabilities.causal if causal else cls.capabilities.bidirectional):
        direction = "causal" if causal else "bidirectional"
        return CheckResult(check.id, check.sentence, causal, "not applicable", f"declares no {direction} form")
    with torch.random.fork_rng(devices=[]), device:
        try:
            check.function(probe)
        except NotApplicableError as outcome:
            status, reason = "not applicable", str(outcome)
        except ViolationError as outcome:
            status, reason = "failed", str(outcome)
        except Exception as error:  # a user's file may raise anything: it is reported, with the setting that raised it
            status, reason = (
                "failed",
                f"{type(error).__name__}: {(str(error).strip() or '(no message)').splitlines()[0]}",
            )
    setting = tuple(probe.setting.items()) if status == "failed" else ()
    return CheckResult(check.id, check.sentence, causal, status, reason, setting)


def run_checks(
    mixer: str | type[Mixer], *, slow: bool = False, only: Collection[str] | None = None, plain: PlainForm | None = None
) -> list[CheckResult]:
    """The contract on a mixer, causal and not. `only` names checks. Raises MixerError where the mixer or a check is
    unknown.
    """
    cls = get(mixer) if isinstance(mixer, str) else mixer
    known = {c.id for c in CHECKS}
    if only is not None and not set(only) <= known:
        raise MixerError(f"unknown check {min(set(only) - known)!r}; the checks are {', '.join(c.id for c in CHECKS)}")
    device = pick_device(cls, mixer if isinstance(mixer, str) else cls.__qualname__)
    chosen = [c for c in CHECKS if (c.id in only if only is not None else slow or not c.slow)]
    return [run_check(check, cls, causal, plain, device) for check in chosen for causal in (True, False)]


def as_json(mixer: str, results: Sequence[CheckResult]) -> dict[str, Any]:
    """One JSON document: the mixer, whether everything holds, counts by status, and each result."""
    counts = {status: sum(r.status == status for r in results) for status in ("ok", "not applicable", "failed")}
    listed = [asdict(r) | {"setting": dict(r.setting)} for r in results]
    return {"mixer": mixer, "holds": counts["failed"] == 0, "counts": counts, "results": listed}


def render(mixer: str, results: Sequence[CheckResult]) -> Table:
    """A table for the terminal: a row a check, a column a direction, and each failure with the smallest input that
    shows it.
    """
    from rich.markup import escape
    from rich.table import Table

    words = {"ok": "[green]holds[/]", "not applicable": "[dim]—[/]", "failed": "[red]FAILS[/]"}
    table = Table(title=f"mixer contract: {escape(mixer)}", show_lines=False)
    for column in ("check", "causal", "not causal", "what holds, or what does not"):
        table.add_column(column, overflow="fold")
    for name in dict.fromkeys(r.check for r in results):
        pair = [r for r in results if r.check == name]
        by_direction = {r.causal: words[r.status] for r in pair}
        table.add_row(name, by_direction.get(True, ""), by_direction.get(False, ""), _remarks(pair, escape))
    return table


def _remarks(pair: Sequence[CheckResult], escape: Callable[[str], str]) -> str:
    failures = [r for r in pair if r.status == "failed"]
    if not failures:
        reasons = {r.reason for r in pair if r.status == "not applicable"}
        idle = all(r.status == "not applicable" for r in pair)
        return f"[dim]{escape('; '.join(sorted(reasons)))}[/]" if idle else escape(pair[0].sentence)
    lines = [pair[0].sentence]
    lines += [
        f"{'causal' if r.causal else 'not causal'}: {r.reason}; shown by {r.shown_by or 'building it'}"
        for r in failures
    ]
    return "\n".join(escape(line) for line in lines)
