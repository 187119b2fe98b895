"""Progress of a run on stderr: a line on a terminal that always has step, total and remaining time, otherwise one line
per validation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from suite.console import err, format_metric, warn
from suite.safe_text import one_line

if TYPE_CHECKING:  # tasks.base imports pydantic, which the command line loads late
    from tasks.base import Metric

REFRESH_S = 0.25
GAP = "  "
BAR, SHORTEST_NAME = 12, 8  # characters


class TrainingProgress:
    """A progress line with loss, last validation, throughput and the remaining time."""

    def __init__(self, name: str, metric: Metric, examples_per_step: int, unit: str) -> None:
        self.name, self.metric, self.examples_per_step, self.unit = name, metric, examples_per_step, unit
        self.bar = Progress(_Line(), console=err, disable=not err.is_terminal)
        self.task: TaskID = self.bar.add_task(one_line(name), total=None, loss="", speed="", valid="")
        self.valid, self.figures, self.shown, self.began, self.first = "", "", 0.0, time.perf_counter(), 0

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def started(self, step: int, total: int) -> None:
        self.first, self.total, self.began = step, total, time.perf_counter()
        self.bar.update(self.task, total=total, completed=step)

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        now = time.perf_counter()
        if now - self.shown < REFRESH_S and step < self.total:
            return
        self.shown = now
        throughput = (step - self.first) * self.examples_per_step / (now - self.began)
        shown_loss, speed = f"loss {loss:.4f}", f"{throughput:,.0f} {self.unit}/s"
        self.figures = GAP.join((shown_loss, speed))
        self.bar.update(self.task, completed=step, valid=self.valid, loss=shown_loss, speed=speed)

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        self.valid = f"valid {self.metric.name} {format_metric(self.metric, metrics[self.metric.name])}"
        if not err.is_terminal:
            err.print(f"{self.name}: step {step}/{self.total}  {self.figures}  {self.valid}", soft_wrap=True)

    def before_checkpoint(self, step: int) -> None:
        """Nothing is buffered here."""

    def warn(self, message: str) -> None:
        warn(message)


class _Line(ProgressColumn):
    """The whole line, as wide as the terminal."""

    max_refresh = None

    def render(self, task: Task) -> _Fitted:
        return _Fitted(task)


class _Fitted:
    """A line that is composed for the width it gets: a table of columns would shorten each of them."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        task = self.task
        line = compose(
            task.description,
            (int(task.completed), int(task.total) if task.total is not None else None),
            (task.elapsed or 0.0, task.finished_time if task.finished else task.time_remaining),
            [task.fields[name] for name in ("valid", "loss", "speed")],
            options.max_width,
        )
        yield Text(line, no_wrap=True, overflow="crop", end="")


def compose(
    name: str,
    steps: tuple[int, int | None],
    times: tuple[float, float | None],
    figures: Sequence[str],
    width: int,
) -> str:
    """The line for a width in characters. Step, total and remaining time are always whole; of the rest what fits, in
    this order: the name's beginning, the figures, the whole name, a bar, the elapsed time.

    Args:
        name: of the run.
        steps: done, and in all; None before that is known.
        times: elapsed and remaining seconds; None before that is known.
        figures: texts, the most important first; empty ones are left out.
        width: of the terminal.

    Returns:
        At most `width` characters, unless the three that are always there need more.
    """
    done, total = steps
    always = [f"{done}/{total if total is not None else '?'}", f"{_clock(times[1])} left"]
    used = sum(map(len, always)) + len(GAP)
    parts: dict[str, str] = {}
    wanted = [("name", _shortened(name, SHORTEST_NAME)), *((text, text) for text in figures if text), ("name", name)]
    wanted += [("bar", _bar(done, total)), ("elapsed", _clock(times[0]))]
    for key, text in wanted:
        more = len(text) - len(parts[key]) if key in parts else len(text) + len(GAP)
        if used + more <= width:
            parts[key], used = text, used + more
    if "name" in parts:
        parts["name"] = _shortened(name, len(parts["name"]) + width - used)
    shown = [parts.get("name"), parts.get("bar"), always[0], *(parts.get(text) for text in figures if text)]
    return GAP.join(part for part in (*shown, parts.get("elapsed"), always[1]) if part)


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _bar(done: int, total: int | None) -> str:
    full = BAR * done // total if total else 0
    return "━" * full + "·" * (BAR - full)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
