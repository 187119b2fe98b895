"""What a board says about itself: its result in one sentence, and what a reader must know to use it."""

from __future__ import annotations

from collections.abc import Iterator

from suite.boards.board import Board
from suite.boards.pair import leading
from suite.config.run_config import OWN_ORIGINS
from suite.console import format_metric, format_number


def headline(board: Board) -> str:
    """The leader and its result, and how many rows no test separates from it."""
    leader = next((row for row in board.rows if row.place == 1), None)
    if leader is None:
        return "no matched run yet" if board.rows else "no row yet"
    said = f"{leader.mixer} leads with {format_metric(board.metric, leader.mean)}"
    rank = leader.figures.rank if leader.figures else None
    others = rank.last - rank.first if rank else 0
    return f"{said}; {others} other row(s) cannot be distinguished from it" if others else said


def notes(board: Board) -> str:
    """How the rows are compared, and what is not shown or not comparable."""
    return "; ".join([*map(str, board.orders), *statistics(board), *cautions(board), *not_shown(board)])


def scope(board: Board) -> str:
    """What the board's result is about, and what it does not say.

    Args:
        board: the board.

    Returns:
        A sentence with the size of model, training and data.
    """
    made = next((row.first for row in board.rows if not row.unranked), board.rows[0].first if board.rows else None)
    if made is None:
        return ""
    train, data, size = made.config.train, made.data, made.certificate
    return (
        f"Scope: {size.reference_parameters:,} parameters without embeddings and head, {train.steps:,} steps with "
        f"batches of {train.batch_size}, {size.length} tokens each, from {data.splits['train']:,} training {data.unit}"
        f". {_order_elsewhere(board)}"
    )


def _order_elsewhere(board: Board) -> str:
    if not board.orders:
        return "It does not show whether the order holds at a larger scale."
    return f"Does the order hold? {'; '.join(map(str, board.orders))}."


def statistics(board: Board) -> Iterator[str]:
    """How the rows were compared, and how noisy they are."""
    noise, metric = board.noise, board.metric
    if noise is None:
        if any(not row.unranked for row in board.rows):
            yield "one seed per row: an order of means, which no test supports"
        return
    unit = " %" if metric.unit == "%" else (f" {metric.unit}" if metric.unit else "")
    names = {"welch": "Welch's t test", "paired": "the paired t test and sign flips"}
    yield (
        "± 95 % interval of the mean (seeds, and the rate that validation chose); rows that no test separates share "
        "ranks (level .05 over the board, Holm)"
    )
    known = (
        f"calibration seeds correlate {noise.calibrated.estimate:.2f}" if noise.calibrated else "no calibration runs"
    )
    yield f"compared by {names[noise.test]} ({known})"
    sigma = f"a run's standard deviation is {format_number(metric, noise.deviation)}{unit}"
    if noise.correlation:
        sigma += f", equal seeds correlate {noise.correlation.estimate:.2f}"
    yield sigma
    if noise.detectable is not None:
        yield f"differences to softmax from {format_number(metric, noise.detectable)}{unit} on are found with power .8"
    yield from _leading_pair(board, unit)
    optimism = max((abs(row.figures.optimism) for row in board.rows if row.figures), default=0.0)
    if optimism:
        added = f"{format_number(metric, optimism)}{unit}"
        yield f"choosing rates on validation adds at most {added} to a row's expectation"


def _leading_pair(board: Board, unit: str) -> Iterator[str]:
    """How far another test set could change the difference of the first two rows, in the metric's direction."""
    pair = leading(board)
    if pair is None or pair.over_units is None:
        return
    sign = 1 if board.metric.higher_is_better else -1
    intervals = [sorted(sign * end for end in each.interval()) for each in (pair.difference, pair.over_units)]
    estimate, *ends = (
        format_number(board.metric, value, signed=True)
        for value in (sign * pair.difference.estimate, *intervals[0], *intervals[1])
    )
    yield (
        f"{pair.one.mixer} minus {pair.other.mixer}: {estimate}{unit} ({ends[0]} to {ends[1]} over seeds; {ends[2]} to "
        f"{ends[3]} over seeds and {pair.units})"
    )


def cautions(board: Board) -> Iterator[str]:
    """What is not comparable."""
    ranked = [row for row in board.rows if not row.unranked]
    if ranked and not any(row.race and row.race.ended for row in ranked):
        yield "no row had the full race (suite sweep): rates were not tuned equally"
    if len({tuple(made.seed for made in row.records) for row in ranked}) > 1:
        yield "rows have different seeds"
    if any("host prior" in row.mixer for row in board.rows):
        yield "host prior: positive, normalised weights of that kind, not the full published layer of the name"
    if len({made.hardware.device for row in board.rows for made in row.records}) > 1:
        yield "runs of different devices: compare no speeds or memory"
    foreign = [row.first for row in board.rows if row.first.config.mixer_origin not in OWN_ORIGINS]
    if foreign:
        unverified = any(made.certificate.flops_verified is not True for made in foreign)
        ending = ", and FLOPs are unverified where marked" if unverified else ""
        yield f"parameters and FLOPs of third-party mixers are as recorded{ending}"
    for row in board.rows:
        for seed, reason in row.diverged.items():
            yield f"{row.mixer}, seed {seed} diverged and counts with the untrained model's figure ({reason})"


def not_shown(board: Board) -> Iterator[str]:
    """What has no row."""
    if board.other_rates:
        yield f"{board.other_rates} row(s) of other learning rates or weight decays not shown: validation chose"
    if board.unfinished:
        yield f"{board.unfinished} unfinished, failed or diverged run(s) not shown"
    if board.refused:
        yield f"{board.refused} record(s) left out, damaged or contradictory: suite doctor names them"
