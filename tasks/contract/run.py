"""Runs the task contract on one task: the library that `suite check` and the contract tests use.

results = run_checks("sotu")                      # a registered name, path/file.py:Class, or a class
failed = [r for r in results if r.status == "failed"]
print(render("sotu", results))
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.base import DataError, Task, TaskOptions
from tasks.contract import description, evaluation, training
from tasks.contract.probe import REGISTERED, Check, Figure, NotApplicableError, Probe, ViolationError
from tasks.randomness import restored_generators
from tasks.registry import get

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CHECKS", "Check", "CheckResult", "as_json", "render", "run_check", "run_checks"]

Status = Literal["ok", "not applicable", "failed"]
_ORDER = tuple(module.__name__ for module in (description, training, evaluation))
CHECKS: tuple[Check, ...] = tuple(sorted(REGISTERED, key=lambda c: _ORDER.index(c.function.__module__)))
"""The whole contract, in the order of the table."""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check. `setting` is the smallest setting tried that shows the failure, with its figures."""

    check: str
    sentence: str
    status: Status
    reason: str = ""
    setting: tuple[tuple[str, Figure], ...] = ()

    @property
    def shown_by(self) -> str:
        """The setting in words: `split=valid, batch_size=7`."""
        return ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.setting)


def run_check(check: Check, probe: Probe) -> CheckResult:
    """Runs one check. Whatever the task raises is a failure of the check; the global generators are left as they were.

    Args:
        check: one of `CHECKS`.
        probe: the task with its options and data.

    Returns:
        The result, with a reason where the status is not "ok".
    """
    status: Status = "ok"
    reason = ""
    probe.at()
    with restored_generators():
        try:
            check.function(probe)
        except NotApplicableError as outcome:
            status, reason = "not applicable", str(outcome)
        except ViolationError as outcome:
            status, reason = "failed", str(outcome)
        except Exception as error:  # a user's task may raise anything: it is reported with the setting that raised it
            message = (str(error).strip() or "(no message)").splitlines()[0]
            status, reason = "failed", f"{type(error).__name__}: {message}"
    setting = tuple(probe.setting.items()) if status == "failed" else ()
    return CheckResult(check.id, check.sentence, status, reason, setting)


def run_checks(
    task: str | type[Task],
    data_dir: Path | None = None,
    options: TaskOptions | None = None,
    *,
    slow: bool = False,
    only: Collection[str] | None = None,
) -> list[CheckResult]:
    """Runs the contract on a task.

    Args:
        task: a registered name, `path/file.py:Class`, or a class.
        data_dir: the folder or file of its data, where it reads any.
        options: its options; None: its defaults. Options that make the data small make the checks fast.
        slow: also run the slow checks, and read large splits whole.
        only: names of checks; None: all of them.

    Returns:
        One result per check, in the order of `CHECKS`.

    Raises:
        DataError: the task or a check does not exist, or the data cannot be read.
    """
    cls = get(task) if isinstance(task, str) else task
    known = {c.id for c in CHECKS}
    if only is not None and not set(only) <= known:
        raise DataError(f"unknown check {min(set(only) - known)!r}; the checks are {', '.join(c.id for c in CHECKS)}")
    probe = Probe(cls, options if options is not None else cls.Options(), data_dir, slow)
    probe.new().load()
    chosen = [c for c in CHECKS if (c.id in only if only is not None else slow or not c.slow)]
    return [run_check(check, probe) for check in chosen]


def as_json(task: str, results: Sequence[CheckResult]) -> dict[str, Any]:
    """The results as one JSON document.

    Args:
        task: the name to show.
        results: what `run_checks` returned.

    Returns:
        The task, whether everything holds, counts by status, and each result.
    """
    counts = {status: sum(r.status == status for r in results) for status in ("ok", "not applicable", "failed")}
    listed = [asdict(r) | {"setting": dict(r.setting)} for r in results]
    return {"task": task, "holds": counts["failed"] == 0, "counts": counts, "results": listed}


def render(task: str, results: Sequence[CheckResult]) -> Table:
    """The results as a table for the terminal.

    Args:
        task: the name to show.
        results: what `run_checks` returned.

    Returns:
        A table with one row per check; a failed one shows the smallest setting with the failure.
    """
    from rich.table import Table
    from rich.text import Text

    words = {"ok": Text("holds", "green"), "not applicable": Text("—", "dim"), "failed": Text("FAILS", "red")}
    table = Table(title=Text(f"task contract: {task}"), show_lines=False)
    for column in ("check", "result", "what holds, or what does not"):
        table.add_column(column, overflow="fold")
    for r in results:
        remark = Text(r.sentence)  # never markup
        if r.status == "failed":
            remark = Text(f"{r.sentence}\n{r.reason}; shown by {r.shown_by or 'the task itself'}")
        if r.status == "not applicable":
            remark = Text(r.reason, "dim")
        table.add_row(r.check, words[r.status], remark)
    return table
