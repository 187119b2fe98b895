"""The least time that each Triton kernel would need on an H100: an ESTIMATE from counted work, not a measurement.

    python -m kernels.tools.roofline [--write docs/kernels.md]

A kernel's bound is the largest of its times for matrix products, exponentials, other arithmetic, the L2 cache and
memory, each at the peak rate. Launches, latency, barriers and tails are left out: a kernel that processes the tokens
one after another is bound by latency when it has few programs, which this estimate does not show.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from kernels.registry import KERNELS
from kernels.work import RATES, B, H, T

BEGIN, END = "<!-- roofline: python -m kernels.tools.roofline --write docs/kernels.md -->", "<!-- end of roofline -->"


def all_work() -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """(call, forward or backward, work) of every registered kernel that has an estimate."""
    for kernel in KERNELS:
        if kernel.work is not None:
            work = kernel.work()
            yield work.call, "forward", work.forward
            yield work.call, "backward", work.backward


def seconds(work: Mapping[str, float]) -> dict[str, float]:
    """Time of each kind of work at its peak rate."""
    return {kind: amount / RATES[kind] for kind, amount in work.items()}


def table() -> str:
    lines = [
        f"ESTIMATE for an H100 SXM, batch {B}, {T} tokens, {H} heads; not measured, see the assumptions above.",
        "",
        "| kernel | part | bound by | least time | the other bounds |",
        "|---|---|---|---|---|",
    ]
    for call, part, work in all_work():
        (kind, most), *others = sorted(seconds(work).items(), key=lambda item: -item[1])
        rest = ", ".join(f"{name} {_time(each)}" for name, each in others)
        lines.append(f"| {call} | {part} | {kind} | {_time(most)} | {rest} |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.tools.roofline", description="estimated bounds of the kernels on an H100"
    )
    parser.add_argument("--write", type=Path, help="a file whose table of bounds is replaced")
    options = parser.parse_args()
    if options.write:
        before, _, rest = options.write.read_text("utf-8").partition(BEGIN)
        options.write.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}", "utf-8")
    sys.stdout.write(table() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
