"""The results of `suite bench`: one JSON document, a table for the terminal, a plot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backbones.implementations import forget_implementations, implementations
from kernels.cpu import limits
from suite.bench.comparison import Comparison, Outcome, run_comparison
from suite.bench.timing import CPU, exponent, interleaved
from suite.console import err
from suite.errors import UserError, did_you_mean
from suite.records import provenance
from suite.training.devices import pick_device

KINDS = ("kernels", "mixers", "train", "decode")
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
MAX_SCAN_EXPONENT = 1.10  # of time over length
MIN_LENGTHS = 4  # below this no exponent is fitted
#: How each figure of a document is worded; the gap takes the competitor's name.
FIGURE_NAMES = {
    "price": "time relative to {}",
    "speed": "speedup over {}",
    "memory": "memory relative to {}",
    "mfu": "fraction of the {}'s FLOP rate",
}


def run(
    kind: str,
    mixers: Sequence[str],
    lengths: str | None,
    against: Sequence[str],
    rounds: int,
    threads: int,
    plot_file: Path | None,
    device: str = "cpu",
) -> dict[str, Any]:
    """The whole command: select, measure, plot. Raises UserError for invalid options before anything is timed."""
    if kind not in KINDS:
        raise UserError(f"bench: unknown kind {kind!r}{did_you_mean(kind, KINDS)} (allowed: {', '.join(KINDS)})")
    if plot_file is not None and plot_file.suffix not in PLOT_SUFFIXES:
        raise UserError(f"--plot: {plot_file} does not end in .png, .svg or .pdf")
    torch.set_num_threads(threads)
    chosen = pick_device(device)
    document = measure(kind, select(kind, mixers, _parse_lengths(lengths), chosen), rounds, against, chosen)
    if plot_file is not None:
        plot(document, plot_file)
    return document


def _parse_lengths(lengths: str | None) -> list[int]:
    try:
        found = [int(part) for part in (lengths or "").split(",") if part.strip()]
    except ValueError:
        found = [0]
    if any(T < 1 for T in found):
        raise UserError(f"--lengths: {lengths!r} is not a list of token counts such as 256,1024")
    return found


def select(kind: str, mixers: Sequence[str], lengths: Sequence[int], device: torch.device = CPU) -> list[Comparison]:
    """The comparisons of one kind. Raises UserError for an option that this kind does not have."""
    if device != CPU:
        from suite.bench.on_gpu import gpu_comparisons

        if kind != "kernels":
            raise UserError(f"--device {device}: `suite bench {kind}` runs on a CPU only; leave the option out")
        _refuse("--mixer", mixers, kind)
        return list(gpu_comparisons(lengths, device))
    if kind == "kernels":
        from suite.bench.kernels import kernel_comparisons

        _refuse("--mixer", mixers, kind)
        return list(kernel_comparisons(lengths))
    from suite.bench.layers import decoding_comparisons, layer_comparisons
    from suite.bench.training import training_comparisons

    if kind == "mixers":
        return list(layer_comparisons(mixers, lengths))
    _refuse("--lengths", lengths, kind)
    return list(training_comparisons(mixers) if kind == "train" else decoding_comparisons(mixers))


def _refuse(option: str, values: Sequence[object], kind: str) -> None:
    if values:
        given = ", ".join(map(str, values))
        raise UserError(f"{option} {given}: `suite bench {kind}` does not have this option; leave it out")


def measure(
    kind: str, comparisons: Sequence[Comparison], rounds: int, against: Iterable[str], device: torch.device = CPU
) -> dict[str, Any]:
    """Runs all comparisons and returns the document. Raises UserError for a competitor that none of them has."""
    forget_implementations()  # of an earlier run of this process
    outcomes: list[Outcome] = []
    only = tuple(against)
    with Progress(console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(kind, total=len(comparisons))
        for comparison in comparisons:
            bar.update(task, description=f"{comparison.name}, {comparison.length:,}")
            outcomes.append(run_comparison(comparison, rounds, only))
            bar.advance(task)
    unknown = set(only) - {name for o in outcomes for name in (*o.measured, *o.failed)}
    if unknown:
        name, known = min(unknown), sorted({name for o in outcomes for name in o.implementations} - {"ours"})
        raise UserError(f"--against: no competitor {name!r}{did_you_mean(name, known)} (allowed: {', '.join(known)})")
    return {
        "kind": "speed",
        "bench": kind,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "dtype": "float32" if device == CPU else "float32 and bfloat16",
        "clock": "process time" if device == CPU and torch.get_num_threads() == 1 else "wall time",
        "pass": "decoding" if kind == "decode" else "forward and backward",
        "implementations": implementations(device, "bf16" if kind == "train" else "fp32"),
        "limits": measured_limits(rounds),
        "hardware": provenance.hardware(device).model_dump(mode="json"),
        "versions": provenance.packages(),
        "contests": [outcome.plain() for outcome in outcomes],
        "exponents": list(exponents(outcomes)),
    }


def measured_limits(rounds: int) -> dict[str, float]:
    """What the processor can do at most with as many threads as PyTorch has, for readers of the document.

    Args:
        rounds: of which the medians are taken.

    Returns:
        `multiply_add_gflops` and `read_gb_per_s`; empty where the kernels are not compiled.
    """
    adds, read = limits.multiply_adds(), limits.reading()
    if adds is None or read is None:
        return {}
    found = interleaved({"adds": adds[0], "read": read[0]}, rounds)
    return {
        "multiply_add_gflops": adds[1] / found["adds"].median_s / 1e9,
        "read_gb_per_s": read[1] / found["read"].median_s / 1e9,
    }


def limits_line(document: Mapping[str, Any]) -> str:
    """The measured limits in words; empty for documents without them."""
    found = document.get("limits")
    if not found:
        return ""
    return (
        f"multiply-adds at most {found['multiply_add_gflops']:.0f} GFLOP/s, "
        f"memory read at {found['read_gb_per_s']:.1f} GB/s"
    )


def implementations_line(document: Mapping[str, Any]) -> str:
    """What computed the kernels that run otherwise in bf16; empty for documents without steps in bf16."""
    found = {name: form for name, form in document["implementations"].items() if name != "cpu"}
    return "in bf16: " + ", ".join(f"{name} {form}" for name, form in found.items()) if found else ""


def exponents(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """How our time grows with the length, for everything that was timed at enough lengths; bounded for scans."""
    for name in dict.fromkeys(o.comparison.name for o in outcomes):
        timed = [o for o in outcomes if o.comparison.name == name and o.measured]
        if len(timed) >= MIN_LENGTHS:
            lengths = [o.comparison.length for o in timed]
            value = exponent(lengths, [o.measured["ours"].timing.median_s for o in timed])
            bound = MAX_SCAN_EXPONENT if "scan" in name else None
            met = None if bound is None else value <= bound
            yield {"name": name, "lengths": lengths, "exponent": value, "must": bound, "met": met}


def unmet(document: Mapping[str, Any]) -> list[str]:
    """One sentence for each requirement that was not met, or not decided because its competitor could not run."""
    found = []
    for comparison in document["contests"]:
        where = f"{comparison['name']} at {comparison['length']:,}"
        for figure in comparison["figures"]:
            if figure["met"] is False:
                name = figure_name(figure)
                found.append(f"{where}: {name} is {figure['value']:.2f}, required {bound_of(figure)}")
        found += [
            f"{where}: {requirement} is undecided, the competitor could not run"
            for requirement in comparison.get("unjudged", ())
        ]
    return found + [
        f"{e['name']}: exponent {e['exponent']:.2f}, required ≤ {e['must']}"
        for e in document["exponents"]
        if e["met"] is False
    ]


def figure_name(figure: Mapping[str, Any]) -> str:
    return FIGURE_NAMES[figure["figure"]].format(figure["against"])


def bound_of(figure: Mapping[str, Any]) -> str:
    """The required bound, such as `≤ 1.25`; empty if there is none."""
    if figure["must"] is None:
        return ""
    return f"{'≥' if figure['figure'] in ('speed', 'mfu') else '≤'} {figure['must']}"


def table(document: Mapping[str, Any]) -> Table:
    columns = ("comparison", "length", "implementation", "ms", "quartiles", "peak MB", "figures")
    shown = Table(*columns, title=f"suite bench {document['bench']}")
    for comparison in document["contests"]:
        name, length = comparison["name"], f"{comparison['length']:,}"
        for index, row in enumerate(comparison["rows"]):
            low, high = (1e3 * s for s in row["quartiles_s"])
            first = index == 0
            shown.add_row(
                name if first else "",
                length if first else "",
                row["implementation"],
                f"{1e3 * row['median_s']:.2f}",
                f"{low:.2f} … {high:.2f}",
                f"{row['peak_bytes'] / 2**20:.1f}",
                "\n".join(map(_figure, comparison["figures"])) if first else "",
            )
        for failed, reason in comparison["could_not_run"].items():
            head = ("", "") if comparison["rows"] else (name, length)
            shown.add_row(*head, failed, "—", reason, "", "")
    return shown


def _figure(figure: Mapping[str, Any]) -> str:
    value = f"{100 * figure['value']:.0f} %" if figure["figure"] == "mfu" else f"{figure['value']:.2f}"
    mark = {True: " ✓", False: f" ✗ (required {bound_of(figure)})", None: ""}[figure["met"]]
    return f"{figure_name(figure)}: {value}{mark}"


def show(document: Mapping[str, Any], console: Console) -> None:
    """Prints the table, the machine and the unmet requirements."""
    console.print(table(document), width=None if console.is_terminal else 140)
    for found in document["exponents"]:
        console.print(f"{found['name']}: time grows as length^{found['exponent']:.2f}")
    console.print(
        f"{document['hardware']['processor']}, {document['threads']} thread(s), {document['clock']}, "
        f"{document['rounds']} rounds, {document['pass']}"
    )
    for line in filter(None, (limits_line(document), implementations_line(document))):
        console.print(line)
    if document["bench"] == "train":  # the sizes of the compared models
        for comparison in document["contests"]:
            console.print(f"{comparison['name']}: {comparison['about']}")
    for line in unmet(document):
        console.print(f"not met: {line}")


def same_work(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows whose times can be compared: not those of which only the FLOP rate counts, which do other work."""
    rates = {figure["against"] for figure in comparison["figures"] if figure["figure"] == "mfu"}
    return [row for row in comparison["rows"] if row["implementation"] not in rates]


def plot(document: Mapping[str, Any], file: Path) -> None:
    """Time over length, one line per implementation; bars of the medians for what ran at one length only."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(comparison["name"] for comparison in document["contests"]))
    figure = Figure(figsize=(7, 2.6 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        group = [comparison for comparison in document["contests"] if comparison["name"] == name]
        lines: dict[str, list[tuple[int, float]]] = {}
        for comparison in group:
            for row in same_work(comparison):
                lines.setdefault(row["implementation"], []).append((comparison["length"], 1e3 * row["median_s"]))
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
        raise UserError(f"--plot: {error}; choose a file in a writable folder") from None
