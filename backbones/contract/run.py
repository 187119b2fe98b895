"""Runs the mixer contract on one mixer: the library that `suite check` and the contract tests use.

    results = run_checks("fem")                       # a registered name, path/file.py:Class, or a class
    print(render("fem", results))                     # a table, by rich
    failed = [r for r in results if r.status == "failed"]

A mixer may offer a naive reference implementation, slow and made of matrix products and loops, as a method
`plain_forward(x_BTD, context)`: the contract then counts its FLOPs with PyTorch's counter and compares `forward` with
it. Without one, those two checks are reported as not applicable. The suite's tests pass those of the built-in mixers as
`naive`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from backbones.contract import basics, calls, costs, decoding, gradients, visibility
from backbones.contract.probe import (
    CPU,
    REGISTERED,
    Check,
    NaiveForward,
    NotApplicableError,
    Probe,
    Value,
    ViolationError,
)
from backbones.mixers.base import Context, Mixer
from backbones.mixers.errors import MixerError, did_you_mean
from backbones.mixers.registry import get

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "CHECKS",
    "VERSION",
    "Check",
    "CheckResult",
    "as_json",
    "each_check",
    "naive_reference",
    "render",
    "run_check",
    "run_checks",
]

Status = Literal["ok", "not applicable", "failed"]
_ORDER = tuple(module.__name__ for module in (basics, calls, visibility, decoding, costs, gradients))
CHECKS: tuple[Check, ...] = tuple(sorted(REGISTERED, key=lambda c: _ORDER.index(c.function.__module__)))
"""The whole contract, in the order of the table."""
VERSION = 1
"""Of the contract, in records; raised when a check is added or made stricter."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check, causal or not. `setting` is the smallest input tried that shows the failure, with the
    numbers that were compared.
    """

    check: str
    sentence: str
    causal: bool
    status: Status
    reason: str = ""
    setting: tuple[tuple[str, Value], ...] = ()

    @property
    def shown_by(self) -> str:
        """The setting in words: `B=2, T=7, D=32, change=0.031`."""
        return ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.setting)


def naive_reference(cls: type[Mixer]) -> NaiveForward | None:
    """The naive reference implementation that a mixer's own class offers.

    Args:
        cls: the mixer's class.

    Returns:
        Its `plain_forward` as a function of (mixer, x `[B, T, D]`, context), or None.
    """
    offered: Callable[[Any, Tensor, Context], Tensor] | None = getattr(cls, "plain_forward", None)
    return offered


def pick_device(cls: type[Mixer], name: str) -> torch.device:
    """The device for the checks: the CPU, or a GPU for a mixer that runs on nothing else.

    Args:
        cls: the mixer's class.
        name: its name in the error.

    Returns:
        The CPU or the first GPU.

    Raises:
        MixerError: where the mixer cannot run on this machine.
    """
    if not cls.obstacle(CPU):
        return CPU
    if torch.cuda.is_available() and not cls.obstacle(torch.device("cuda")):
        return torch.device("cuda")
    raise MixerError(f"mixer {name!r} cannot run here: {cls.obstacle(CPU)}")


def run_check(
    check: Check, cls: type[Mixer], causal: bool, naive: NaiveForward | None = None, device: torch.device = CPU
) -> CheckResult:
    """Runs one check. Whatever the mixer raises is a failure of the check; torch's global generator is restored.

    Args:
        check: one of `CHECKS`.
        cls: the mixer's class.
        causal: whether the causal variant is checked.
        naive: a naive reference implementation; without one, the class's own `plain_forward`.
        device: where the mixer runs.

    Returns:
        The result, "not applicable" where the mixer has no such variant.
    """
    probe = Probe(cls, causal, naive or naive_reference(cls), device)
    if not (cls.capabilities.causal if causal else cls.capabilities.bidirectional):
        direction = "causal" if causal else "bidirectional"
        return CheckResult(check.id, check.sentence, causal, "not applicable", f"declares {direction}=False")
    status, reason = _outcome(check, probe)
    setting = tuple(probe.setting.items()) if status == "failed" else ()
    return CheckResult(check.id, check.sentence, causal, status, reason, setting)


def _outcome(check: Check, probe: Probe) -> tuple[Status, str]:
    with torch.random.fork_rng(devices=[]), probe.device:
        try:
            check.function(probe)
        except NotApplicableError as outcome:
            return "not applicable", str(outcome)
        except ViolationError as outcome:
            return "failed", str(outcome)
        except Exception as error:  # a user's file may raise anything: it is reported, with the setting that raised it
            first_line = (str(error).strip() or "(no message)").splitlines()[0]
            return "failed", f"{type(error).__name__}: {first_line}"
    return "ok", ""


def run_checks(
    mixer: str | type[Mixer],
    *,
    slow: bool = False,
    only: Collection[str] | None = None,
    naive: NaiveForward | None = None,
) -> list[CheckResult]:
    """Runs the contract on a mixer, causal and not.

    Args:
        mixer: a registered name, `path/file.py:Class`, or a class.
        slow: whether the slow checks run too.
        only: ids of the checks to run, instead of all.
        naive: a naive reference implementation; without one, the class's own `plain_forward`.

    Returns:
        Two results per check, the causal one first, in the order of `CHECKS`.

    Raises:
        MixerError: where the mixer or a check is unknown, or the mixer cannot run on this machine.
    """
    return list(each_check(mixer, slow=slow, only=only, naive=naive))


def each_check(
    mixer: str | type[Mixer],
    *,
    slow: bool = False,
    only: Collection[str] | None = None,
    naive: NaiveForward | None = None,
) -> Iterator[CheckResult]:
    """Runs the contract one check at a time, for a caller that stops at the first failure.

    Args:
        mixer: as for `run_checks`.
        slow: as for `run_checks`.
        only: as for `run_checks`.
        naive: as for `run_checks`.

    Yields:
        The results of `run_checks`, each when it is known.

    Raises:
        MixerError: as for `run_checks`.
    """
    cls = get(mixer) if isinstance(mixer, str) else mixer
    ids = [c.id for c in CHECKS]
    if unknown := sorted(set(only or ()) - set(ids)):
        raise MixerError(f"unknown check {unknown[0]!r}{did_you_mean(unknown[0], ids)} (checks: {', '.join(ids)})")
    device = pick_device(cls, mixer if isinstance(mixer, str) else cls.__qualname__)
    chosen = [c for c in CHECKS if (c.id in only if only is not None else slow or not c.slow)]
    for check in chosen:
        for causal in (True, False):
            yield run_check(check, cls, causal, naive, device)


def as_json(mixer: str, results: Sequence[CheckResult]) -> dict[str, Any]:
    """The results as one JSON document.

    Args:
        mixer: the mixer's name in the document.
        results: from `run_checks`.

    Returns:
        `mixer`; `holds`, true without failures; `counts` by status; `results`, an object per result.
    """
    counts = {status: sum(r.status == status for r in results) for status in ("ok", "not applicable", "failed")}
    listed = [asdict(r) | {"setting": dict(r.setting)} for r in results]
    return {"mixer": mixer, "holds": counts["failed"] == 0, "counts": counts, "results": listed}


def render(mixer: str, results: Sequence[CheckResult]) -> Table:
    """The results as a table for the terminal.

    Args:
        mixer: the mixer's name in the title.
        results: from `run_checks`.

    Returns:
        One row per check, with a column for causal and one for not causal; a failure is shown with the smallest input
        tried that shows it.
    """
    from rich.table import Table
    from rich.text import Text

    words = {"ok": Text("holds", "green"), "not applicable": Text("—", "dim"), "failed": Text("FAILS", "red")}
    table = Table(title=Text(f"mixer contract: {mixer}"), show_lines=False)
    for column in ("check", "causal", "not causal", "what is checked, and what fails"):
        table.add_column(column, overflow="fold")
    for name in dict.fromkeys(r.check for r in results):
        pair = [r for r in results if r.check == name]
        by_direction = {r.causal: words[r.status] for r in pair}
        table.add_row(name, by_direction.get(True, ""), by_direction.get(False, ""), Text(*_remarks(pair)))
    return table


def _remarks(pair: Sequence[CheckResult]) -> tuple[str, str]:
    """The text and its style; text of a mixer's file is never markup."""
    failures = [r for r in pair if r.status == "failed"]
    if not failures:
        reasons = {r.reason for r in pair if r.status == "not applicable"}
        idle = all(r.status == "not applicable" for r in pair)
        return ("; ".join(sorted(reasons)), "dim") if idle else (pair[0].sentence, "")
    lines = [pair[0].sentence]
    lines += [
        f"{'causal' if r.causal else 'not causal'}: {r.reason}; shown by {r.shown_by or 'building it'}"
        for r in failures
    ]
    return "\n".join(lines), ""
