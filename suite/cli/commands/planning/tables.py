"""How `suite plan` shows what it planned: tables of runs, memory, races and the board, or one document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from suite.cli.output import out

if TYPE_CHECKING:
    from suite.planning.board import Counted, Planned, Wish
    from suite.sweeps.plan import Left

GB, DAY_S = 1e9, 86400


@dataclass(frozen=True)
class Sheet:
    """A table: the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table as Markdown, its title in bold above it."""
        lines = [self.columns, ("---", *["---:"] * (len(self.columns) - 1)), *self.rows]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def print_sheets(sheets: Sequence[Sheet], notes: Sequence[str], *, markdown: bool) -> None:
    """Prints tables, then sentences."""
    for sheet in sheets:
        if markdown:
            out.print(sheet.markdown() + "\n", markup=False, highlight=False)
            continue
        table = Table(title=sheet.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for i, column in enumerate(sheet.columns):
            table.add_column(column, justify="right" if i else "left", no_wrap=True)
        for row in sheet.rows:
            table.add_row(*row)
        out.print(table)
        out.print()
    for note in notes:
        out.print(f"- {note}", markup=False, highlight=False)


def print_plan(counted: Sequence[Counted], wish: Wish, *, markdown: bool = False) -> None:
    """Prints the tables of a plan, and what it assumes."""
    rows = planned(counted, wish)
    print_sheets(sheets(rows, wish), assumptions(rows, wish), markdown=markdown)


def planned(counted: Sequence[Counted], wish: Wish) -> list[Planned]:
    """The rows on the wanted devices."""
    from suite.planning.board import plan_row

    return [plan_row(each, wish) for each in counted]


def sheets(rows: Sequence[Planned], wish: Wish) -> tuple[Sheet, ...]:
    """One run, memory of a GPU, races and the board."""
    config = rows[0].counted.racing.config
    devices = f"{wish.gpus} × {wish.gpu.title}, {wish.parallel}" if wish.gpus > 1 else wish.gpu.title
    return (
        Sheet(
            f"One run: {config.task_name}, {config.scale}, {config.train.steps:,} steps of {config.train.batch_size} "
            f"examples on {devices}",
            ("mixer", "parameters", "FLOPs per step", "examples × passes", "step", "run", "GPU hours", "MFU"),
            tuple(_run_row(row) for row in rows if not row.counted.racing.curve),
        ),
        Sheet(
            f"Memory of one GPU of {wish.gpu.memory / GB:.0f} GB, in GB",
            (
                *("mixer", "weights", "gradients", "moments", "kept weights", "gathered", "activations", "all"),
                "largest batch",
            ),
            tuple(_memory_row(row) for row in rows if not row.counted.racing.curve),
        ),
        _races(rows),
    )


def _run_row(row: Planned) -> tuple[str, ...]:
    e = row.estimate
    share = f"{e.examples} × {e.passes}" if e.fits else "does not fit"
    numbers = (f"{row.counted.model.parameters:,}", f"{e.flops:.3g}", share)
    if not e.fits:
        return (row.label, *numbers, "–", "–", "–", "–")
    return (row.label, *numbers, seconds(e.step_s), long_time(e.run_s), hours(e.gpu_hours), f"{e.mfu:.3f}")


def _memory_row(row: Planned) -> tuple[str, ...]:
    e, memory = row.estimate, row.estimate.memory
    parts = (
        *(memory.parameters, memory.gradients, memory.optimiser, memory.ema + memory.selected),
        *(memory.communication, memory.activations, memory.total),
    )
    return (row.label, *(f"{part / GB:.2f}" for part in parts), f"{e.largest_batch}")


def _races(rows: Sequence[Planned]) -> Sheet:
    ranked = [row for row in rows if not row.counted.racing.curve]
    curve = [row for row in rows if row.counted.racing.curve]
    lines = [(row.label, [row]) for row in ranked]
    sizes = ", ".join(dict.fromkeys(row.label.rpartition("=")[2].lstrip("0") for row in curve))
    lines += [(f"softmax at {sizes} × the parameters", curve)] if curve else []
    lines += [("the board", [*ranked, *curve])]
    return Sheet(
        "Races, each run on all GPUs, one after the other",
        ("mixer", "runs", "GPU hours", "time"),
        tuple(_race_row(label, some) for label, some in lines),
    )


def _race_row(label: str, rows: Sequence[Planned]) -> tuple[str, ...]:
    runs = f"{sum(row.runs for row in rows)}"
    if not all(row.estimate.fits for row in rows):
        return (label, runs, "does not fit", "–")
    total = sum(row.race_gpu_hours for row in rows)
    return (label, runs, hours(total), long_time(sum(row.race_s for row in rows)))


def assumptions(rows: Sequence[Planned], wish: Wish) -> list[str]:
    """What a plan assumes and leaves out, one sentence each."""
    from suite.planning.board import precision_of
    from suite.planning.communication import COLLECTIVES, NETWORK
    from suite.planning.device_memory import USABLE
    from suite.planning.gpus import PER_MACHINE

    gpu, racing, reached = wish.gpu, rows[0].counted.racing, rows[0].reference_mfu
    precision = precision_of(racing.config)
    slower = f"; its memory traffic allows {reached:.2f} here" if reached < wish.mfu * 0.995 else ""
    links = (
        f"Links: {gpu.link / GB:.0f} GB/s per GPU in one direction within a machine of {PER_MACHINE}, "
        f"{NETWORK / GB:.0f} GB/s between machines; collectives reach {COLLECTIVES:.0%} of that."
    )
    return [
        "No GPU has been measured by this project: all times are estimates.",
        f"{gpu.title}: {gpu.peak(precision) / 1e12:.0f} TFLOP/s in {precision}, {gpu.memory / GB:.0f} GB, "
        f"{gpu.bandwidth / 1e12:.2f} TB/s ({gpu.source}). {USABLE:.0%} of the memory is used.",
        f"Softmax with the whole batch on one GPU reaches an MFU of {wish.mfu:g}, an assumption (--mfu){slower}. Other "
        "mixers take longer by the bytes that their operations move, and by 10 µs per operation where that is more.",
        "Operations are PyTorch's own, which GPUs run by default; Triton kernels move less.",
        *([links] if wish.gpus > 1 else []),
        f"A move of a race's window adds {racing.per_move} runs, at most twice. Loading data, validation, the test, "
        "checkpoints and failures are not counted.",
    ]


def as_document(counted: Sequence[Counted], wish: Wish, left: Sequence[Left]) -> dict[str, Any]:
    """The plan as plain JSON values. Times are seconds, memory is bytes."""
    from suite.planning.board import board_gpu_hours

    rows = planned(counted, wish)
    config = rows[0].counted.racing.config
    return {
        "task": config.task_name,
        "scale": config.scale,
        "gpu": asdict(wish.gpu),
        "gpus": wish.gpus,
        "parallel": wish.parallel,
        "mfu": wish.mfu,
        "rows": [_row_document(row) for row in rows],
        "board": {
            "runs": sum(row.runs for row in rows),
            "gpu_hours": board_gpu_hours(rows),
            "time_s": sum(row.race_s for row in rows),
            "fits": all(row.estimate.fits for row in rows),
        },
        "left_out": [{"mixer": each.mixer, "reason": each.reason} for each in left],
        "assumptions": assumptions(rows, wish),
    }


def _row_document(row: Planned) -> dict[str, Any]:
    e, racing = row.estimate, row.counted.racing
    return {
        "mixer": row.label,
        "curve": racing.curve,
        "parameters": row.counted.model.parameters,
        "steps": racing.config.train.steps,
        "batch_size": racing.config.train.batch_size,
        **asdict(e),
        "memory": {**asdict(e.memory), "total": e.memory.total},
        "fits": e.fits,
        "reference_mfu": row.reference_mfu,
        "race": {"runs": row.runs, "gpu_hours": row.race_gpu_hours, "time_s": row.race_s, "per_move": racing.per_move},
    }


def seconds(value: float) -> str:
    """A short time, with three significant digits."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def hours(value: float) -> str:
    """GPU hours: with one decimal, small ones with two significant digits."""
    return f"{value:,.1f}" if value >= 10 else f"{value:.2g}"


def long_time(value: float) -> str:
    """The time of a run or of many."""
    from suite.console import duration

    return duration(value) if value < 2 * DAY_S else f"{value / DAY_S:,.1f} days"
