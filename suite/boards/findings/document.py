"""The findings as a Markdown document, generated from claims and records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from suite.boards import words
from suite.boards.columns.cells import kilobytes
from suite.boards.findings.measured import Answer, Finding, overall
from suite.console import format_number
from suite.safe_text import markdown_text

NAME = "FINDINGS.md"
ANSWERS: tuple[Answer, ...] = ("supported", "not supported", "equivalent", "undecided", "not measured")
INTRODUCTION = """# Findings

Published claims about sequence mixers, and what the records here show. Generated from `claims.toml` and the records;
do not edit.

Each claim is tested between two rows of a board after both had their full race: equal budgets, equally tuned learning
rates, 8 seeds. A difference is positive where the first row is better; p is adjusted over all claims of a task (Holm).
A board asks more questions, one for each row against softmax or for each pair, so `suite compare` may call undecided
what one of these few tests decides.
*Not supported* means that a test decided against the claim on one of its boards, whatever the others say; where boards
agree in part only, the answer is *undecided*. *Undecided* does not mean equal: *equivalent* needs the 90 % interval of
the difference inside what 12.5 % more or fewer parameters change in softmax.

State is what a row keeps of earlier tokens while it decodes, all layers together, at the task's length. Where the
better row has the smaller state, it is better per byte of state too.

Everything here is at the scale of the boards, far below that of the papers. A claim that is not supported here may be
true there.
"""


def document(found: Sequence[Finding]) -> str:
    """The document.

    Args:
        found: of `findings`, those of one claim adjacent.

    Returns:
        Markdown, the same for the same claims and records, byte for byte.
    """
    groups = [list(each) for _, each in groupby(found, key=lambda one: one.claim.id)]
    counts = Counter(overall([one.answer for one in each]) for each in groups)
    listed = ", ".join(f"{counts[answer]} {answer}" for answer in ANSWERS if counts[answer])
    lines = [INTRODUCTION, f"{len(groups)} claims: {listed}.", "", "| claim | answer | boards |", "| --- | --- | --- |"]
    lines += [_summary(each) for each in groups]
    for each in groups:
        lines += ["", *_section(each)]
    return "\n".join(lines) + "\n"


def _summary(each: Sequence[Finding]) -> str:
    claim, answers = each[0].claim, [one.answer for one in each]
    measured = len(each) - answers.count("not measured")
    link = f"[{markdown_text(claim.claim)}](#{claim.id})"
    return f"| {link} | {overall(answers)} | {measured} of {len(each)} measured |"


def _section(each: Sequence[Finding]) -> Iterator[str]:
    claim = each[0].claim
    relation = "is better than" if claim.expects == "better" else "is equivalent to"
    yield f"### {claim.id}"
    yield ""
    yield f"{markdown_text(claim.claim)} ({markdown_text(claim.source)}; {markdown_text(claim.published)})"
    yield ""
    yield f"Test: `{claim.one}` {relation} `{claim.other}` at scale {claim.scale}."
    yield f"Written {claim.written:%Y-%m-%d %H:%M} UTC, sha256 `{claim.sha256[:16]}…`."
    yield ""
    yield "| board | difference (95 %) | p | first and second row | state kB | worth | answer |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    yield from map(_line, each)


def _line(one: Finding) -> str:
    if one.pair is None:
        return f"| {one.task} | – | – | {markdown_text(one.missing)} | – | – | {one.answer} |"
    pair, metric = one.pair, one.pair.board.metric
    low, high = (format_number(metric, end, signed=True) for end in pair.difference.interval())
    difference = f"{format_number(metric, pair.difference.estimate, signed=True)} ({low} to {high})"
    values = f"{metric.name} {words.value(pair.one, metric)} and {words.value(pair.other, metric)}"
    states = " and ".join(kilobytes(row, pair.board) for row in (pair.one, pair.other))
    worth = f"{words.exchange(pair.one)} and {words.exchange(pair.other)}"
    late = "" if one.written_before else "; test written after the first run"
    return f"| {one.task} | {difference} | {words.small(one.p)} | {values} | {states} | {worth} | {one.answer}{late} |"
