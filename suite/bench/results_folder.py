"""A folder of speed results: the documents and plots of `suite bench`, and a page of all figures that is made from
them, never edited.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.bench.report import KINDS, plot
from suite.errors import UserError

WORDS = {
    "price": "price over {}",
    "speed": "speed over {}",
    "memory": "memory over {}",
    "mfu": "share of the {}'s rate",
}


def open_for_writing(folder: Path) -> None:
    """Makes the folder, before minutes of timing. Raises UserError where it can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise UserError(f"--out: {error}; give a folder that can be written") from None


def put(document: dict[str, Any], folder: Path) -> None:
    """Writes `<bench>.json` and `<bench>.png`, and the folder's README.md anew."""
    (folder / f"{document['bench']}.json").write_text(
        json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    plot(document, folder / f"{document['bench']}.png")
    (folder / "README.md").write_text(page(documents(folder)), encoding="utf-8")


def documents(folder: Path) -> list[dict[str, Any]]:
    """What lies in the folder, in the order of the kinds."""
    return [
        json.loads((folder / f"{kind}.json").read_text("utf-8"))
        for kind in KINDS
        if (folder / f"{kind}.json").is_file()
    ]


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """Machine, conditions and every figure of the documents, in Markdown."""
    lines = [
        "# Speed",
        "",
        "Made by `suite bench KIND --out FOLDER` from its JSON files. Times are medians of interleaved rounds.",
        "",
    ]
    for document in found:
        machine, versions = document["hardware"], document["versions"]
        lines += [
            f"## suite bench {document['bench']}",
            "",
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
            f"{machine['platform']}; "
            f"{document['threads']} thread(s), {document['clock']}, {document['rounds']} rounds, "
            f"{document['dtype']}, {document['pass']}; "
            f"torch {versions['torch']}, Python {versions['python']}; kernels: {document['implementations']['cpu']}.",
            "",
            "| what | tokens | ms | figure | value | must | met |",
            "|---|---|---|---|---|---|---|",
            *(row for contest in document["contests"] for row in _rows(contest)),
            "",
            *(
                f"{e['name']}: time grows as tokens to the {e['exponent']:.3f}{_must(e)}."
                for e in document["exponents"]
            ),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _rows(contest: Mapping[str, Any]) -> list[str]:
    head = f"| {contest['name']} | {contest['length']:,} "
    if not contest["rows"]:
        return [head + f"| | could not run: {contest['could_not_run'].get('ours', '')} | | | |"]
    times = {row["implementation"]: row["median_s"] for row in contest["rows"]}
    head += f"| {1e3 * times['ours']:.2f} "
    beside = [
        f"{head}| {name}: {1e3 * seconds:.2f} ms | {seconds / times['ours']:.2f}× ours | | |"
        for name, seconds in times.items()
    ]
    figured = {figure["against"] for figure in contest["figures"]}
    rest = [line for name, line in zip(times, beside, strict=True) if name not in figured | {"ours"}]
    failed = [
        f"{head}| {name} could not run: {reason.split('. ')[0]} | | | |"
        for name, reason in contest["could_not_run"].items()
    ]
    return [*(f"{head}| {_figure(figure)} |" for figure in contest["figures"]), *rest, *failed] or [head + "| | | | |"]


def _figure(figure: Mapping[str, Any]) -> str:
    what = WORDS[figure["figure"]].format(figure["against"])
    met = {True: "yes", False: "**no**", None: ""}[figure["met"]]
    return f"{what} | {figure['value']:.3g} | {'' if figure['must'] is None else figure['must']} | {met}"


def _must(found: Mapping[str, Any]) -> str:
    return (
        ""
        if found["must"] is None
        else f" (must be at most {found['must']}: {'met' if found['met'] else '**not met**'})"
    )
