"""Boards, statistics, identities and tracking."""

from __future__ import annotations

from tests.mutants.defect import Defect

BOARDS: tuple[Defect, ...] = (
    Defect(
        "boards",
        "suite/boards/rows.py",
        "-row.mean if metric.higher_is_better else row.mean",
        "-row.mean",
        "errors are ranked with the largest first",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/rows.py",
        'return scores_of(runs, metric, "valid").mean',
        'return scores_of(runs, metric, "test").mean',
        "options are chosen on the test split",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/raced.py",
        'sign * made.metrics["valid"][made.primary_metric]',
        'sign * made.metrics["test"][made.primary_metric]',
        "the race for the learning rate is decided on the test split",
        ("tests/suite/boards/test_verdicts.py",),
    ),
    Defect(
        "boards",
        "suite/boards/board.py",
        "made.group, made.precision, *versions",
        "made.group, *versions",
        "runs in bf16 and fp32 share a board",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/board.py",
        "*versions, made.data.fingerprint)",
        "*versions)",
        "runs on different data share a board",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/rows.py",
        "entries[untuned_configuration(made)][configuration(made)][made.seed] = made",
        "entries[untuned_configuration(made)][configuration(made)].setdefault(made.seed, made)",
        "of a repeated seed the oldest run counts",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/rows.py",
        "math.sqrt(scored.variance) if",
        "math.sqrt(scored.variance / len(each.runs)) if",
        "the standard error of the mean is shown as the spread over seeds",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
            "tests/suite/boards/test_columns.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/rows.py",
        'made.status in ("finished", "diverged") and all(',
        "all(",
        "a run that failed after its test is ranked",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/rows.py",
        "if is_retired(first):",
        "if is_retired(first) and needs_race:",
        "a mixer's earlier version is ranked where no race has ended",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/columns/column.py",
        "'↑' if metric.higher_is_better else '↓'",
        "'↓' if metric.higher_is_better else '↑'",
        "the arrow of the metric's direction",
        ("tests/suite/boards/test_columns.py",),
    ),
    Defect(
        "boards",
        "suite/boards/tracked/publish.py",
        '"ascending": not metric.higher_is_better',
        '"ascending": metric.higher_is_better',
        "the store's table shows the worst run first",
        ("tests/suite/boards/test_columns.py",),
    ),
    Defect(
        "boards",
        "suite/boards/tracked/publish.py",
        '"interrupted": "KILLED"',
        '"interrupted": "FAILED"',
        "an interrupted run is a failed one in the store",
        ("tests/suite/tracking/test_endings.py",),
    ),
    Defect(
        "boards",
        "suite/boards/tracked/publish.py",
        'for split in ("test", "test_skip")',
        'for split in ("test",)',
        "figures without the variant layers never reach the store",
        (
            "tests/suite/tracking/test_publish.py::test_every_figure_of_the_test_reaches_the_store_also_without_variant_layers",
        ),
    ),
    Defect(
        "boards",
        "suite/tracking/publishing.py",
        "if not is_alive(tags):",
        "if is_alive(tags):",
        "living runs are closed",
        ("tests/suite/tracking/test_store.py::test_only_runs_whose_process_has_died_are_closed",),
    ),
    Defect(
        "boards",
        "suite/tracking/store.py",
        "end_time=end_ms)",
        "end_time=None)",
        "a run that is delivered later ends when it is delivered",
        ("tests/suite/tracking/test_delivery.py::test_a_run_arrives_completely",),
    ),
    Defect(
        "boards",
        "suite/statistics/samples.py",
        "float(values.var(ddof=1))",
        "float(values.var(ddof=0))",
        "the variance over seeds is too small",
        (
            "tests/suite/statistics/test_comparisons.py",
            "tests/suite/statistics/test_boards_figures.py",
        ),
    ),
    Defect(
        "boards",
        "suite/config/identity.py",
        "if k not in left_out or canonical_json(v) != canonical_json(left_out[k])}",
        "if k not in left_out}",
        "an option that was added later never changes the identity",
        (
            "tests/suite/config/test_identity.py",
            "tests/suite/config/test_every_option_counts.py",
        ),
    ),
    Defect(
        "boards",
        "suite/submissions/reproduce.py",
        "zip(trained, nudged, strict=True)",
        "zip(trained, recorded, strict=True)",
        "one figure raised by much widens what is allowed",
        ("tests/suite/submissions/reproduction/test_badge.py",),
    ),
    Defect(
        "boards",
        "suite/submissions/machines.py",
        "if made.id in own:",
        "if not made.id:",
        "a run of this machine that claims another one is reproduced",
        ("tests/suite/submissions/reproduction/test_machines.py",),
    ),
)
