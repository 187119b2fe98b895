"""Boards, statistics, identities and tracking."""

from __future__ import annotations

from tests.mutants.defect import Defect

BOARDS: tuple[Defect, ...] = (
    Defect(
        "boards",
        "suite/boards/board.py",
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
        "suite/boards/board.py",
        'if key not in chosen or _better(_mean(runs, "valid"), _mean(chosen[key], "valid"), metric)',
        'if key not in chosen or _better(_mean(runs, "test"), _mean(chosen[key], "test"), metric)',
        "options are chosen on the test split",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
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
        "suite/boards/board.py",
        "by_configuration[configuration(made)][made.seed] = made",
        "by_configuration[configuration(made)].setdefault(made.seed, made)",
        "of a repeated seed the oldest run counts",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/board.py",
        "statistics.stdev(values)",
        "statistics.pstdev(values)",
        "the spread is that of a population",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/board.py",
        'if made.status == "finished":',
        'if "test" in made.metrics:',
        "a run that failed after its test is ranked",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/board.py",
        "and not first.config.unmatched and not is_retired(first)",
        "and not first.config.unmatched",
        "a mixer's earlier version is ranked",
        (
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/columns.py",
        "'↑' if metric.higher_is_better else '↓'",
        "'↓' if metric.higher_is_better else '↑'",
        "the arrow of the metric's direction",
        (
            "tests/suite/boards/test_columns.py",
            "tests/suite/boards/test_board.py",
            "tests/suite/boards/test_directions.py",
        ),
    ),
    Defect(
        "boards",
        "suite/boards/publish.py",
        "ascending=not metric.higher_is_better",
        "ascending=metric.higher_is_better",
        "the store's table shows the worst run first",
        (
            "tests/suite/boards/test_columns.py",
            "tests/suite/boards/test_directions.py",
            "tests/suite/tracking/test_store.py",
        ),
    ),
    Defect(
        "boards",
        "suite/training/mirror.py",
        '"interrupted": "KILLED"',
        '"interrupted": "FAILED"',
        "an interrupted run is a failed one in the store",
        ("tests/suite/tracking/test_endings.py",),
    ),
    Defect(
        "boards",
        "suite/training/mirror.py",
        'for split in ("test", "test_skip")',
        'for split in ("test",)',
        "figures without the variant layers never reach the store",
        (
            "tests/suite/training/test_runs.py",
            "tests/suite/tracking/test_endings.py",
        ),
    ),
    Defect(
        "boards",
        "suite/tracking/store.py",
        "if not is_alive(tags):",
        "if is_alive(tags):",
        "living runs are closed",
        ("tests/suite/tracking/test_store.py",),
    ),
    Defect(
        "boards",
        "suite/tracking/store.py",
        "end_time=end_ms)",
        "end_time=None)",
        "a run that is delivered later ends when it is delivered",
        (
            "tests/suite/tracking/test_store.py",
            "tests/suite/tracking/test_delivery.py",
        ),
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
)
