"""One table of columns: what the terminal, Markdown, JSON and the tracking store show of a board."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from suite.boards.board import Board, boards, primary_metric
from suite.boards.columns import table as columns
from suite.boards.columns.column import Column
from suite.boards.columns.table import COLUMNS
from suite.boards.markdown import markdown
from suite.boards.plain import plain
from suite.boards.terminal import table
from suite.boards.tracked.publish import metrics_of_run, publish
from tests.suite.tiny import made_record


class RecordingTracker:
    """Keeps the board that it was sent."""

    def board(self, note_markdown: str, **view: Any) -> None:
        self.note, self.view = note_markdown, view


@pytest.fixture(scope="module")
def made() -> Board:
    seeds = [made_record("fem", 0.6 + s / 100, seed=s) for s in range(3)]
    records = [
        *(made_record("softmax", 0.5 + s / 100, seed=s) for s in range(2)),
        *seeds,
        made_record("no-mixing", 0.9, matched=False),
    ]
    [board] = boards(records)
    return board


def terminal_lines(board: Board, width: int = 300, *, limited: bool = False) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table(board, width if limited else 0))
    return stream.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("│", "|").strip("| ").split("|")]


def published(board: Board) -> RecordingTracker:
    tracker = RecordingTracker()
    publish(tracker, [board], board.metric)  # type: ignore[arg-type]
    return tracker


def test_terminal_markdown_and_json_show_the_same(made):
    text = markdown(made)
    document = plain(made)
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    rows = [line for line in terminal_lines(made) if line.startswith("│")]
    assert len(document["rows"]) == len(lines) == len(rows) == 3
    for row, line, shown in zip(document["rows"], lines, rows, strict=True):
        assert cells(line) == cells(shown)
        assert row["mixer"] in line
        assert f"{100 * row['mean']:.2f} " in line
        assert ("unmatched" in line) == (row["place"] is None)
    assert document["rows"][0]["values"] == [0.6, 0.61, 0.62]
    assert document["rows"][0]["runs"] == ["fem-0", "fem-1", "fem-2"]
    assert text.startswith("**fashion-mnist · board**: fem leads with 61.00 %\n")


def test_json_and_the_tracking_store_have_these_columns(made):
    assert set(plain(made)["rows"][0]) == {
        "place",
        "mixer",
        "contract",
        "decoded_per_s",
        "machine",
        "matched",
        "mean",
        "sd",
        "seeds",
        "runs",
        "mixer_options",
        "values",
        "parameters",
        "ratio",
        "flops",
        "flops_verified",
        "reference_flops",
        "state_bytes",
        "peak_memory_bytes",
        "examples_per_s",
        "convolution",
        "difference",
        "diverged",
        "exchange",
        "half_width",
        "pareto",
        "solved",
        "optimism",
        "race",
        "rank",
        "badge",
        "unranked",
        "verdict",
    }
    view = published(made).view
    assert (view["primary_metric"], view["ascending"]) == ("test/top1", False)
    assert view["columns"] == [
        "tags.mixer",
        "tags.scale",
        "tags.seed",
        "tags.matched",
        "metrics.test/top1",
        "metrics.valid/top1",
        "metrics.budget/parameters",
        "metrics.budget/flops",
        "metrics.time/examples_per_s",
        "tags.result",
    ]


def test_a_new_column_is_one_entry(made, monkeypatch):
    added = Column(
        "decoded_per_s",
        lambda row: 12.5 if row.mixer == "fem" else None,
        "decoded/s",
        mlflow="metrics.time/decoded_per_s",
    )
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, added))
    lines = [line for line in markdown(made).splitlines() if line.startswith("| ")]
    assert [cells(line)[-1] for line in lines] == ["decoded/s", "---", "12.5", "–", "–"]
    assert [cells(line)[-1] for line in terminal_lines(made) if line.startswith("│")] == ["12.5", "–", "–"]
    assert [row["decoded_per_s"] for row in plain(made)["rows"]] == [12.5, None, None]
    tracker = published(made)
    assert tracker.view["columns"][-1] == "metrics.time/decoded_per_s"
    assert "decoded/s" in tracker.note
    assert metrics_of_run(made.rows[0].first, made.metric)["time/decoded_per_s"] == 12.5


def test_names_of_columns_are_unique_and_each_is_shown_somewhere():
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(column.header or column.json or column.mlflow for column in COLUMNS)


def test_an_errors_column_has_its_unit_and_direction():
    [board] = boards([made_record(task="household-power")])
    assert "test mse, standardised² ↓" in markdown(board)


def test_the_store_gets_the_values_of_its_columns_for_every_run():
    made = made_record("fem", 0.7, valid=0.6)
    metric = primary_metric(made)
    assert metrics_of_run(made, metric) == {
        "test/top1": 0.7,
        "valid/top1": 0.6,
        "budget/parameters": made.certificate.parameters,
        "budget/flops": made.certificate.flops,
        "time/examples_per_s": made.timing.examples_per_s if made.timing else None,
    }
    failed = metrics_of_run(made_record("fem", status="failed"), metric)
    assert set(failed) == {"budget/parameters", "budget/flops"}


@pytest.mark.parametrize("width", [240, 160, 110, 80, 60])
def test_a_narrow_terminal_leaves_out_memory_speed_and_flops_first(made, width):
    lines = terminal_lines(made, width, limited=True)
    assert all(len(line) <= width for line in lines)
    shown = "\n".join(lines)
    for row in made.rows:
        [line] = [line for line in lines if line.startswith("│") and f" {row.mixer} " in line]
        assert f"{100 * row.mean:.2f} " in line
        assert (str(row.figures.rank) if row.figures else "unmatched") in line
    header = "\n".join(lines[1:6])
    present = [
        title in header for title in ("peak MB", "examples/s", "FLOPs", "runs", "seeds", "worth", "rank", "mixer")
    ]
    assert present == sorted(present)  # what is missing comes before what is there
    assert present[-2:] == [True, True]
    assert all(present) == (width == 240)
    assert ("left out for lack of width" in " ".join(shown.split())) == (width < 240)


@pytest.mark.parametrize("width", [160, 110, 80, 60])
def test_rank_mixer_and_value_are_whole_at_any_width_however_long_their_names(width):
    """Names that look alike when cut: they go over several lines instead."""
    sets = ("width_factor=1.25", "width_factor=1.5")
    made = [made_record("softmax", 0.7 + 0.01 * i, sets=(text,), seed=s) for i, text in enumerate(sets) for s in (0, 1)]
    [found] = boards([*made, *(made_record("linear-residual-query", 0.7, seed=s) for s in (0, 1))])
    lines = terminal_lines(found, width, limited=True)
    assert "…" not in "\n".join(lines)
    assert all(len(line) <= width for line in lines)
    first = {line.split("│")[2].strip() for line in lines if line.startswith("│")}
    for row in found.rows:
        assert set(row.mixer.split()) <= {word for cell in first for word in cell.split()}
        assert any(f"{100 * row.mean:.2f}" in line for line in lines)


def test_a_title_that_two_boards_of_a_third_partys_task_share_names_their_groups():
    theirs = []
    for steps in ("steps=5", "steps=6"):
        record = made_record("softmax", sets=(steps,))
        changed = record.config.model_copy(update={"task": "theirs", "task_origin": "their-package 1.0"})
        theirs.append(record.model_copy(update={"task": "theirs", "config": changed, "group": changed.group}))
    first, second = boards(theirs)
    assert first.title != second.title
    assert {first.deviations[0], second.deviations[0]} == {f"group {made.group[:8]}" for made in theirs}
    assert [row.mixer for board in (first, second) for row in board.rows] == ["softmax", "softmax"]


def test_the_decoding_speed_is_that_of_the_first_run_that_has_one():
    column = next(each for each in COLUMNS if each.name == "decoded_per_s")
    first, second = made_record("softmax"), made_record("softmax", seed=1)
    assert second.timing is not None
    timed = second.model_copy(update={"timing": second.timing.model_copy(update={"decoded_per_s": 321.4})})
    [without] = boards([first, second])
    [with_it] = boards([first, timed])
    assert column.value(without.rows[0]) is None
    assert column.cell(with_it.rows[0], with_it) == "321"
    assert column not in columns.table_columns(without)
    assert column in columns.table_columns(with_it)


def test_a_timing_without_decoding_is_written_as_before_it_was_measured():
    made = made_record("softmax")
    assert "decoded_per_s" not in made.content()["timing"]
    assert made.timing is not None
    timed = made.model_copy(update={"timing": made.timing.model_copy(update={"decoded_per_s": 1.0})})
    assert timed.content()["timing"]["decoded_per_s"] == 1.0


def test_the_machines_of_a_row_are_those_of_all_its_runs_and_gpus_by_their_names():
    column = next(each for each in COLUMNS if each.name == "machine")

    def timed(seed: int, **hardware: str) -> Any:
        record = made_record("softmax", seed=seed)
        return record.model_copy(update={"hardware": record.hardware.model_copy(update=hardware)})

    [board] = boards(
        [
            timed(0, processor="B"),
            timed(1, processor="A"),
            timed(2, processor="A"),
            timed(3, processor="A", device="NVIDIA H100"),
        ]
    )
    assert column.value(board.rows[0]) == "A, B, NVIDIA H100"
