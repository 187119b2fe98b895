"""What a bench says: one JSON document, a table in the terminal, a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backbones.base import implementations
from suite.bench.comparison import Contest, Outcome, run_contest
from suite.bench.timing import exponent
from suite.console import err
from suite.errors import UserError
from suite.records import provenance

EXPONENT_MUST = 1.10  # of time over length, for scans
KINDS = ("kernels", "mixers", "train", "decode")


def run(
    kind: str,
    mixers: Sequence[str],
    lengths: str | None,
    against: Sequence[str],
    rounds: int,
    threads: int,
    file: Path | None,
) -> dict[str, Any]:
    """The whole command: choose, measure, draw. Raises UserError before anything is timed."""
    if kind not in KINDS:
        raise UserError(f"bench: unknown kind {kind!r}; there are {', '.join(KINDS)}")
    if file is not None and file.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--plot: {file} does not end in .png, .svg or .pdf")
    torch.set_num_threads(threads)
    document = measure(kind, select(kind, mixers, _numbers(lengths)), rounds, against)
    if file is not None:
        plot(document, file)
    return document


def _numbers(lengths: str | None) -> list[int]:
    try:
        found = [int(part) for part in (lengths or "").split(",") if part.strip()]
    except ValueError:
        found = [0]
    if any(T < 1 for T in found):
        raise UserError(f"--lengths: {lengths!r} is not a list of token counts such as 256,1024")
    return found


def select(kind: str, mixers: Sequence[str], lengths: Sequence[int]) -> list[Contest]:
    """The contests of one kind. Raises UserError for options that say nothing there."""
    if kind == "kernels":
        from suite.bench.kernels import contests

        _refuse("--mixer", mixers, kind)
        return list(contests(lengths))
    from suite.bench.layers import decodings, layers
    from suite.bench.training import trainings

    if kind == "mixers":
        return list(layers(mixers, lengths))
    _refuse("--lengths", lengths, kind)
    return list(trainings(mixers) if kind == "train" else decodings(mixers))


def _refuse(option: str, given: Sequence[object], kind: str) -> None:
    if given:
        raise UserError(f"{option} says nothing to `suite bench {kind}`; leave it out")


def measure(kind: str, contests: Sequence[Contest], rounds: int, against: Iterable[str]) -> dict[str, Any]:
    """Runs all contests and gives the document."""
    outcomes: list[Outcome] = []
    only = tuple(against)
    with Progress(console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(kind, total=len(contests))
        for contest in contests:
            bar.update(task, description=f"{contest.name}, {contest.length:,}")
            outcomes.append(run_contest(contest, rounds, only))
            bar.advance(task)
    unknown = set(only) - {name for o in outcomes for name in (*o.measured, *o.failed)}
    if unknown:
        known = sorted({name for o in outcomes for name in o.peers} - {"ours"})
        raise UserError(f"--against: no peer is called {min(unknown)!r} here; there are {', '.join(known)}")
    return {
        "kind": "speed",
        "bench": kind,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "clock": "process time" if torch.get_num_threads() == 1 else "wall time",
        "pass": "decoding" if kind == "decode" else "forward and backward",
        "implementations": implementations(torch.device("cpu")),
        "hardware": provenance.hardware(torch.device("cpu")).model_dump(mode="json"),
        "versions": provenance.versions(),
        "contests": [outcome.plain() for outcome in outcomes],
        "exponents": exponents(outcomes),
    }


def exponents(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """How time grows with the length, of everything that ran at four lengths or more."""
    found = []
    for name in dict.fromkeys(o.contest.name for o in outcomes):
        series = [
            (o.contest.length, o.measured["ours"].timing.median_s)
            for o in outcomes
            if o.contest.name == name and o.measured
        ]
        if len(series) >= 4:
            lengths, seconds = ([pair[i] for pair in series] for i in (0, 1))
            value = exponent([int(T) for T in lengths], [float(s) for s in seconds])
            must = EXPONENT_MUST if "scan" in name else None
            found.append(
                {
                    "name": name,
                    "lengths": lengths,
                    "exponent": value,
                    "must": must,
                    "met": None if must is None else value <= must,
                }
            )
    return found


def missed(document: dict[str, Any]) -> list[str]:
    """The demands that were not met, in words."""
    words = [
        f"{c['name']} at {c['length']:,}: {f['figure']} {f['value']:.2f} against {f['against']}, must be {f['must']}"
        for c in document["contests"]
        for f in c["figures"]
        if f["met"] is False
    ]
    words += [
        f"{c['name']} at {c['length']:,}: {what} could not be judged"
        for c in document["contests"]
        for what in c.get("unjudged", ())
    ]
    return words + [
        f"{e['name']}: exponent {e['exponent']:.2f}, must be {e['must']}"
        for e in document["exponents"]
        if e["met"] is False
    ]


def table(document: dict[str, Any]) -> Table:
    shown = Table(
        "what",
        "length",
        "implementation",
        "ms",
        "quartiles",
        "peak MB",
        "figures",
        title=f"suite bench {document['bench']}",
    )
    for contest in document["contests"]:
        for index, row in enumerate(contest["rows"]):
            low, high = (1e3 * s for s in row["quartiles_s"])
            first = index == 0
            shown.add_row(
                contest["name"] if first else "",
                f"{contest['length']:,}" if first else "",
                row["implementation"],
                f"{1e3 * row['median_s']:.2f}",
                f"{low:.2f} … {high:.2f}",
                f"{row['peak_bytes'] / 2**20:.1f}",
                "\n".join(map(_figure, contest["figures"])) if first else "",
            )
        for name, reason in contest["could_not_run"].items():
            head = ("", "") if contest["rows"] else (contest["name"], f"{contest['length']:,}")
            shown.add_row(*head, name, "—", reason, "", "")
    return shown


def _figure(figure: dict[str, Any]) -> str:
    value = f"{100 * figure['value']:.0f} %" if figure["figure"] == "mfu" else f"{figure['value']:.2f}"
    mark = {True: " ✓", False: f" ✗ (must be {figure['must']})", None: ""}[figure["met"]]
    return f"{figure['figure']} {value} of {figure['against']}{mark}"


def show(document: dict[str, Any], console: Console) -> None:
    console.print(table(document), width=None if console.is_terminal else 140)
    for found in document["exponents"]:
        console.print(f"{found['name']}: time grows as length to the {found['exponent']:.2f}")
    hardware = document["hardware"]
    console.print(
        f"{hardware['processor']}, {document['threads']} thread(s), {document['clock']}, {document['rounds']} "
        f"rounds, {document['pass']}"
    )
    for line in missed(document):
        console.print(f"not met: {line}")


def plot(document: dict[str, Any], file: Path) -> None:
    """Time over length, a line an implementation, for what ran at several lengths; bars of the medians otherwise."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(contest["name"] for contest in document["contests"]))
    figure = Figure(figsize=(7, 2.6 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        group = [contest for contest in document["contests"] if contest["name"] == name]
        lines: dict[str, list[tuple[int, float]]] = {}
        for contest in group:
            for row in contest["rows"]:
                lines.setdefault(row["implementation"], []).append((contest["length"], 1e3 * row["median_s"]))
        if len(group) > 1:
            for label, points in lines.items():
                axes.loglog(*zip(*points, strict=True), marker="o", label=label)
            axes.set_xlabel("tokens")
            axes.set_ylabel("ms")
            axes.legend(fontsize="small")
        else:
            axes.barh(list(lines), [points[0][1] for points in lines.values()])
            axes.set_xlabel("ms")
        axes.set_title(name, fontsize="medium")
    try:
        figure.savefig(file)
    except OSError as error:
        raise UserError(f"--plot: {error}; give a file in a folder that can be written") from None
