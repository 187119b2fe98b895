"""Plots inside the page: every mark and style that a plot refers to is there once, and nothing drawn is lost."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from suite.boards.page.curves import COLOURS as LINE_COLOURS
from suite.boards.page.plots import _svg, distinct_lines
from suite.boards.page.vector import Shared, _path

COLOURS = ("#0072b2", "#d55e00")


def drawn(values, band=True):
    """A plot of matplotlib with lines, a band, markers, and text that XML would take for a tag."""

    def draw(axes):
        for i, colour in enumerate(COLOURS):
            axes.plot(values, np.add(values, i), marker="os"[i], color=colour, label=f"a<b & {i}")
        if band:
            axes.fill_between(values, values, np.add(values, 1), color=COLOURS[0], alpha=0.1)

    return _svg(draw)


@pytest.fixture(scope="module")
def page():
    shared = Shared()
    plots = [shared.plot(drawn([0.0, 1.0, 2.5])), shared.plot(drawn([1.0, 2.0, 3.0]))]
    return shared, [ElementTree.fromstring(plot) for plot in plots]


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def points(d):
    """The points of a path, absolute, or after the first each from the one before."""
    found, at, relative = [], np.zeros(2), False
    for letter, text in re.findall(r"([MLlzCQ])([^MLlzCQ]*)", d):
        relative = letter == "l"
        for pair in np.reshape([float(x) for x in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", text)], (-1, 2)):
            at = at + pair if relative else pair
            found.append(at)
    return np.array(found).reshape(-1, 2)


def test_what_a_plot_refers_to_is_there_once(page):
    shared, plots = page
    ids = re.findall(r'id="(\w+)"', shared.symbols())
    classes = re.findall(r"\.(\w+) {", shared.rules())
    assert len(ids) == len(set(ids))
    assert len(classes) == len(set(classes))
    for plot in plots:
        assert {use.get("href") for use in plot.iter("use")} <= {f"#{name}" for name in ids}
        assert {each.get("class") for each in plot.iter() if each.get("class")} <= set(classes)
        assert not [each for each in plot.iter() if {"style", "id", "clip-path"} & set(each.attrib)]
    assert len(ids) == len({use.get("href") for plot in plots for use in plot.iter("use")})
    assert len(ids) == 2 + len(COLOURS) + len(plots)  # ticks of two axes, markers, and a band of each plot


def test_the_second_plot_adds_no_style_and_no_mark():
    shared = Shared()
    shared.plot(drawn([0.0, 1.0, 2.5], band=False))
    before = shared.rules(), shared.symbols()
    shared.plot(drawn([1.0, 2.0, 3.0], band=False))
    assert (shared.rules(), shared.symbols()) == before


def test_every_line_marker_and_text_of_the_file_is_in_the_page(page):
    shared, (plot, _) = page
    whole = ElementTree.fromstring(drawn([0.0, 1.0, 2.5]))
    names = {each: each.tag.rpartition("}")[2] for each in whole.iter()}
    symbols = set(whole.iterfind(".//{*}defs//"))
    wanted = [each for each in whole.iter() if names[each] in ("path", "use", "text") and each not in symbols]
    found = [each for each in plot.iter() if each.tag in ("path", "use", "text")]
    assert [names[each] for each in wanted] == [each.tag for each in found]
    for one, other in zip(wanted, found, strict=True):
        assert (one.text or "").strip() == (other.text or "").strip()
        np.testing.assert_allclose(points(other.get("d", "")), points(one.get("d", "")), atol=0.051)
        assert (one.get("d", "").count("z"), one.get("d", "").count("M")) == tuple(map(other.get("d", "").count, "zM"))
        assert [numbers(one.get(name, "")) for name in ("x", "y")] == [
            numbers(other.get(name, "")) for name in ("x", "y")
        ]
        own = [part for part in (one.get("style") or "").split("; ") if not part.startswith("font-family")]
        assert style_of(shared, other).split("; ") == "; ".join(own).rstrip("; ").split("; ")
    assert {colour for colour in COLOURS if colour in shared.rules()} == set(COLOURS)


def style_of(shared, element):
    return {name: style for style, name in shared.classes.items()}.get(element.get("class"), "")


def test_marks_and_bands_keep_their_shapes():
    """Those with several parts (a cross) or closed lines too; a rounded long line ends where it should."""
    closed = "M 0.04 0 L 1 2 L 3 4 z M 5 5 L 6 7 "
    np.testing.assert_allclose(points(_path(closed)), points(closed), atol=0.051)
    assert (_path(closed).count("z"), _path(closed).count("M")) == (1, 2)
    curve = "M 0 2 C 0.5 2 1 1.7 1.4 1.4 z"
    assert points(_path(curve)).tolist() == points(curve).tolist()
    long = "M 0 0 " + " ".join(f"L {i / 3:.3f} {-i / 7:.3f}" for i in range(500))
    np.testing.assert_allclose(points(_path(long)), points(long), atol=0.051)


def test_a_plot_for_the_page_is_less_than_half_of_its_file():
    text = drawn([0.0, 1.0, 2.5])
    assert len(Shared().plot(text)) < len(text) / 2


@pytest.mark.parametrize("reference", [0, 5, 12])
def test_a_plot_has_a_line_for_the_best_rows_and_always_for_softmax(monkeypatch, reference):
    monkeypatch.setattr("suite.boards.page.plots.is_reference", lambda row: row == reference)
    rows: Any = list(range(14))
    lines: list[Any] = list(distinct_lines(rows))
    others = [row for row in rows if row != reference]
    assert len(lines) == len(LINE_COLOURS)
    assert reference in lines
    assert [row for row in lines if row != reference] == others[: len(lines) - 1]
    assert list(distinct_lines(rows[:4])) == rows[:4]
