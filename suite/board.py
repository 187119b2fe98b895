"""Boards: the records of one task, scale and protocol, a row a mixer, ordered by the primary metric on test."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

import tasks
from backbones.mixers import registry
from backbones.mixers.base import Mixer
from backbones.mixers.registry import MixerError
from suite import home, record
from suite.baselines import is_baseline
from suite.budget import solve, widths_of, with_free_widths
from suite.config import TUNED, digest
from suite.console import format_metric
from suite.errors import UserError
from suite.record import Record
from suite.resolve import SCALES, default_options, from_canonical, resolve
from tasks.base import DataError, Metric


@dataclass(frozen=True)
class Row:
    """The runs of one configuration, all seeds."""

    mixer: str
    records: tuple[Record, ...]
    mean: float
    spread: float | None  # sample standard deviation over seeds
    place: int | None  # None where the run is not matched: it never ranks

    @property
    def first(self) -> Record:
        return self.records[0]


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: equal task, scale, data options, shape and training, so only the mixer and its tuned rates differ."""

    task: str
    domain: str
    scale: str
    deviations: tuple[str, ...]  # what differs from the shipped recipe
    metric: Metric
    rows: tuple[Row, ...]
    unfinished: int
    other_rates: int  # rows of tuned rates that validation did not choose

    @property
    def title(self) -> str:
        changed = f" · {', '.join(self.deviations)}" if self.deviations else ""
        return f"{self.task} · {self.scale}{changed}"


def local_records() -> list[Record]:
    """Every readable record under the runs folder, the oldest first; an unreadable one is left to `suite doctor`."""
    found = []
    for path in sorted(home.home().glob(f"*/{record.NAME}")):
        try:
            found.append(record.read(path))
        except record.RecordError:
            continue
    return found


def count_records() -> int:
    """How many record files stand under the runs folder, readable or not."""
    return sum(1 for _ in home.home().glob(f"*/{record.NAME}"))


def is_known(made: Record) -> bool:
    """Whether this version knows the record's task, its options, its metric and its scale, and so can place it on a board."""
    if not {"data", "model", "mixer_options", "hybrid", "train"} <= made.config.keys():
        return False
    try:
        metrics = tasks.get(made.task)(_task_options(made)).metrics
    except (DataError, ValidationError):
        return False
    return made.scale in SCALES and made.primary_metric in {m.name for m in metrics}


def primary_metric(made: Record) -> Metric:
    """The metric that a known record's task, with the record's options, puts first."""
    return next(m for m in tasks.get(made.task)(_task_options(made)).metrics if m.name == made.primary_metric)


def boards(records: Iterable[Record], *, task: str | None = None, domain: str | None = None, scale: str | None = None) -> list[Board]:
    """One board for each group of comparable records, shipped recipes first."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for made in records:
        if task in (None, made.task) and domain in (None, made.domain) and scale in (None, made.scale) and is_known(made):
            content = (made.data.protocol, made.data.fingerprint) if made.data else ()
            groups[made.task, made.scale, made.group, made.precision, *content].append(made)
    made_boards = [_board(group) for group in groups.values()]
    return sorted(made_boards, key=lambda b: (b.domain, b.task, bool(b.deviations), b.scale, b.title))


def _board(records: Sequence[Record]) -> Board:
    one = records[-1]
    metric = primary_metric(one)
    finished = [made for made in records if made.status == "finished"]
    by_configuration: dict[str, dict[int, Record]] = defaultdict(dict)
    for made in finished:
        by_configuration[_configuration(made)][made.seed] = made  # the newest of a repeated seed
    every = [_row(list(seeds.values())) for seeds in by_configuration.values()]
    rows = _best_rates(every, metric)
    rows.sort(key=lambda row: (not _ranks(row), -row.mean if metric.higher_is_better else row.mean))
    placed = tuple(Row(row.mixer, row.records, row.mean, row.spread, i if _ranks(row) else None) for i, row in enumerate(rows, 1))
    return Board(one.task, one.domain, one.scale, _deviations(one), metric, placed, len(records) - len(finished), len(every) - len(rows))


def _ranks(row: Row) -> bool:
    return bool(row.first.certificate["matched"]) and not row.first.config["unmatched"]


def _best_rates(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """Of each mixer's tuned rates, the one that is best on validation: choosing among them by the test metric would be peeking."""
    chosen: dict[str, Row] = {}
    sign = 1.0 if metric.higher_is_better else -1.0
    for row in rows:
        key = _configuration_of(row.first, _untuned(row.first))
        rival = chosen.get(key)
        if rival is None or sign * _valid(row) > sign * _valid(rival):
            chosen[key] = row
    return list(chosen.values())


def _untuned(made: Record) -> dict[str, Any]:
    """The config without what validation chooses for each mixer."""
    options = _task_options(made)
    given = _given_options(made) if options.tuned() else None
    return {
        **made.config,
        "train": {k: v for k, v in made.config["train"].items() if k not in TUNED},
        "data": {k: v for k, v in options.portable().items() if k not in options.tuned()},
        # the widths that the solver takes follow from the length, which such an option of the data may change
        "mixer_options": made.config["mixer_options"] if given is None else given,
    }


def _valid(row: Row) -> float:
    return statistics.fmean(made.metrics["valid"][made.primary_metric] for made in row.records)


def _task_options(made: Record) -> Any:
    return tasks.get(made.task).Options.model_validate(made.config["data"])


def _configuration(made: Record) -> str:
    return _configuration_of(made, {**made.config, "data": _task_options(made).portable()})


def _configuration_of(made: Record, config: dict[str, Any]) -> str:
    """What runs of one row share: all but the seed. A file of a mixer or of the data counts by its content, wherever it stands."""
    kept = {k: v for k, v in config.items() if k not in ("seed", "skip_variant_layers")}
    return digest({**kept, "mixer": Path(made.mixer).name if ".py:" in made.mixer else made.mixer})


def _row(records: list[Record]) -> Row:
    values = [made.metrics["test"][made.primary_metric] for made in records]
    one = records[0]
    hybrid = f" (hybrid {','.join(map(str, one.config['hybrid']))})" if one.config["hybrid"] else ""
    changed = _options_off_default(one)
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Row(
        (Path(one.mixer).name if ".py:" in one.mixer else one.mixer) + hybrid + changed,
        tuple(records),
        statistics.fmean(values),
        spread,
        None,
    )


def _options_off_default(made: Record) -> str:
    """What a mixer wants said of its rows, and the options and tuned rates that differ from the usual ones."""
    solved, cls = made.certificate.get("mixer_options", {}), _class(made)
    named = {name: solved[name] for name in cls.board_options if name in solved} if cls else {}
    given = {**named, **{name: value for name, value in (_given_options(made) or {}).items() if name not in named}}
    switches = [cls.board_note] if cls and cls.board_note else []
    switches += [f"{name}={'on' if value is True else 'off' if value is False else value}" for name, value in given.items()]
    shipped, train = _shipped(made)["train"], made.config["train"]
    switches += [f"{name}={train[name]:g}" for name in TUNED if train[name] != shipped[name]]
    switches += [f"{name}={made.config['data'][name]}" for name in sorted(_task_options(made).tuned())]
    return f" ({', '.join(switches)})" if switches else ""


def _given_options(made: Record) -> dict[str, Any] | None:
    """The mixer's options that the user chose; None where nobody knows: of code that is not the suite's, or of another version's."""
    if made.config.get("mixer_origin") != "built-in":
        return None
    try:
        config = from_canonical(made.config)
        solved = solve(with_free_widths(config), tasks.get(made.task)(config.data).spec).mixer_options
    except (MixerError, UserError):
        return None
    usual = default_options(config).model_dump(mode="json") | {name: getattr(solved, name) for name in widths_of(config)}
    return {name: value for name, value in made.config["mixer_options"].items() if value not in (None, usual[name])}


def _class(made: Record) -> type[Mixer] | None:
    """The mixer's class, where it is the suite's own: no board runs other code."""
    return registry.get(made.mixer) if made.config.get("mixer_origin") == "built-in" and made.mixer in registry.names() else None


def _shipped(made: Record) -> dict[str, Any]:
    return resolve(task=made.task, mixer="softmax", scale=made.scale).canonical()


def _deviations(made: Record) -> tuple[str, ...]:
    shipped, differing, tuned = _shipped(made), [], {*TUNED, *_task_options(made).tuned()}
    if made.data and made.data.protocol != tasks.get(made.task).protocol:
        differing.append(f"protocol {made.data.protocol}")
    if made.data and tasks.get(made.task).needs_data_dir:
        differing.append(f"data {made.data.fingerprint[:8]}")
    for section in ("data", "model", "train"):
        for name, value in made.config[section].items():
            if value != shipped[section].get(name) and (section == "model" or name not in tuned):
                differing.append(f"{name}={value}")
    return tuple(differing)


def _cells(row: Row, board: Board) -> list[str]:
    one, certificate = row.first, row.first.certificate
    figure = format_metric(board.metric, row.mean)
    if row.spread is not None:
        figure += f" ± {format_metric(board.metric, row.spread)}"
    return [
        str(row.place) if row.place else "baseline" if is_baseline(one.mixer) else "unmatched", row.mixer, figure, str(len(row.records)),
        f"{certificate['parameters']:,} ({certificate['ratio']:.3f}×)", f"{certificate['flops'] / certificate['reference_flops']:.2f}×",
        f"{one.timing.examples_per_s:,.0f}" if one.timing else "–", f"{one.peak_memory_bytes / 2**20:,.0f}",
    ]  # fmt: skip


def _headers(board: Board) -> list[str]:
    arrow = "↑" if board.metric.higher_is_better else "↓"
    unit = "" if board.metric.unit == "%" else (f", {board.metric.unit}" if board.metric.unit else "")
    return ["#", "mixer", f"test {board.metric.name}{unit} {arrow}", "seeds", "parameters (of softmax's)", "FLOPs", "examples/s", "peak MB"]


def _notes(board: Board) -> str:
    notes = ["ordered by the mean over seeds (± sample standard deviation); an order, not a significance test"]
    if board.other_rates:
        notes.append(f"{board.other_rates} row(s) of other learning rates or weight decays not shown: validation chose")
    if any("host form" in row.mixer for row in board.rows):
        notes.append("host form: positive, normalised weights of that kind, not the full published layer of the name")
    if len({made.hardware.device for row in board.rows for made in row.records}) > 1:
        notes.append("runs of different devices: compare no speeds or memory")
    if board.unfinished:
        notes.append(f"{board.unfinished} unfinished, failed or diverged run(s) not shown")
    return "; ".join(notes)


def table(board: Board) -> Table:
    """The board for a terminal."""
    made = Table(title=board.title, caption=_notes(board), title_justify="left", caption_justify="left")
    for i, header in enumerate(_headers(board)):
        made.add_column(header, justify="left" if i == 1 else "right", no_wrap=i == 1)
    for row in board.rows:
        made.add_row(*map(escape, _cells(row, board)))
    return made


def markdown(board: Board) -> str:
    """The board as a Markdown section; its first line is the news."""
    leader = next((row for row in board.rows if row.place == 1), None)
    news = f": {leader.mixer} leads with {format_metric(board.metric, leader.mean)}" if leader else ": no matched run yet"
    head = _headers(board)
    lines = [f"**{board.title}**{news}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row, board)) + " |" for row in board.rows]
    return "\n".join([*lines, "", f"*{_notes(board)}*", ""])


def plain(board: Board) -> dict[str, Any]:
    """The board as JSON values."""
    return {
        "task": board.task, "domain": board.domain, "scale": board.scale, "deviations": list(board.deviations),
        "metric": board.metric.name, "higher_is_better": board.metric.higher_is_better, "unfinished": board.unfinished,
        "rows": [
            {
                "place": row.place, "mixer": row.mixer, "matched": row.first.certificate["matched"], "mean": row.mean, "sd": row.spread,
                "seeds": [made.seed for made in row.records], "runs": [made.id for made in row.records],
                "mixer_options": row.first.certificate.get("mixer_options", {}),
                "values": [made.metrics["test"][made.primary_metric] for made in row.records],
                "parameters": row.first.certificate["parameters"], "ratio": row.first.certificate["ratio"],
                "flops": row.first.certificate["flops"], "reference_flops": row.first.certificate["reference_flops"],
                "state_bytes": row.first.certificate["state_bytes"], "peak_memory_bytes": row.first.peak_memory_bytes,
                "examples_per_s": row.first.timing.examples_per_s if row.first.timing else None,
            }
            for row in board.rows
        ],
    }  # fmt: skip
