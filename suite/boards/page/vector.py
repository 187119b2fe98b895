"""Plots inside a page: what matplotlib repeats in each is there once, in one style sheet and one set of symbols."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

Element = ElementTree.Element


@dataclass
class Shared:
    """What the plots of one page have in common.

    classes: style → the class that has it.
    marks: path and style of a tick or marker → its name.
    """

    classes: dict[str, str] = field(default_factory=dict)
    marks: dict[tuple[str, str], str] = field(default_factory=dict)

    def plot(self, svg: str) -> str:
        """A plot for the page.

        Args:
            svg: a whole file of matplotlib.

        Returns:
            An `svg` element without name spaces, styles, or definitions: those are shared.
        """
        root = ElementTree.fromstring(svg)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        names = {mark.get("id", ""): self._mark(mark) for mark in root.iterfind(".//defs/path")}
        for element in root.iter():
            self._plain(element, names)
        _unwrap(root)
        root.attrib = {"role": "img", "viewBox": root.get("viewBox", "")}
        return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")

    def rules(self) -> str:
        """The style sheet of the plots.

        Returns:
            CSS.
        """
        return "".join(f"svg .{name} {{ {style} }}\n" for style, name in self.classes.items())

    def symbols(self) -> str:
        """The ticks and markers that the plots refer to.

        Returns:
            SVG elements of `defs`.
        """
        marks = ((name, path, self.classes.get(style, "")) for (path, style), name in self.marks.items())
        return "".join(f'<path id="{name}" d="{path}"{f" class={kind!r}" * bool(kind)}/>' for name, path, kind in marks)

    def _mark(self, mark: Element) -> str:
        style = _style(mark)
        self._class(style)
        return self.marks.setdefault((_path(mark.get("d", "")), style), f"m{len(self.marks)}")

    def _class(self, style: str) -> str:
        return self.classes.setdefault(style, f"p{len(self.classes)}") if style else ""

    def _plain(self, element: Element, names: dict[str, str]) -> None:
        """Only what this element does not share. Axes hold all that is drawn in them: nothing needs a clip path."""
        kept = {name: value for name, value in element.attrib.items() if name in ("x", "y", "transform", "viewBox")}
        target = next((value for name, value in element.attrib.items() if name.endswith("href")), "").removeprefix("#")
        if target:
            kept["href"] = f"#{names[target]}"
        if "d" in element.attrib:
            kept["d"] = _path(element.attrib["d"])
        if name := self._class(_style(element)):
            kept["class"] = name
        if kept.get("transform", "").startswith("rotate(-0 "):  # turned by nothing
            del kept["transform"]
        for name in ("x", "y"):
            if name in kept:
                kept[name] = kept[name].removesuffix(".0")
        element.attrib = kept
        element.text = (element.text or "").strip() or None
        element.tail = None


def _style(element: Element) -> str:
    """The style without the font, which the page sets."""
    return re.sub(r"font-family: [^;]*;? ?", "", element.get("style", "")).strip().rstrip(";")


def _path(d: str) -> str:
    """A path in fewer letters: straight lines from point to point; curves stay as they are."""
    path = re.sub(r"\.0\b", "", d)
    if re.search("[CQ]", path):
        return re.sub(r"\s+", " ", path).strip().replace("M ", "M")
    return "".join(_line(line) for line in path.replace("L", " ").split("M")[1:])


def _line(line: str) -> str:
    """From its first point on by differences, which are shorter. In whole tenths, so that rounding does not add up."""
    tenths = [round(10 * float(number)) for number in line.replace("z", " ").split()]
    first, rest = tenths[:2], [now - before for now, before in zip(tenths[2:], tenths, strict=False)]
    return f"M{_spaced(first)}" + f"l{_spaced(rest)}" * bool(rest) + "z" * ("z" in line)


def _spaced(tenths: list[int]) -> str:
    """Decimals, without a zero before the point, and without a space before a minus."""
    texts = (f"{number / 10:g}".replace("0.", ".") if abs(number) < 10 else f"{number / 10:g}" for number in tenths)
    return " ".join(texts).replace(" -", "-")


def _unwrap(element: Element) -> None:
    """Removes definitions, what has no ink, and groups without attributes, whose children take their place."""
    children: list[Element] = []
    for child in element:
        _unwrap(child)
        if child.tag == "g" and not child.attrib:
            children.extend(child)
        elif child.tag not in ("defs", "metadata"):
            children.append(child)
    element[:] = children
