"""What an H100 would need at the least for each Triton kernel here: an ESTIMATE from counted work, not a measurement.

    python -m kernels.tools.roofline [--write docs/kernels.md]

A kernel's bound is the largest of its times for matrix products, exponentials, other arithmetic, the L2 cache and
memory, each at the peak rate. Launches, latency, barriers and tails are left out: a kernel that goes through the tokens
one after another is bound by latency when its programs are few, which this doesn't see.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- roofline: python -m kernels.tools.roofline --write docs/kernels.md -->", "<!-- end of roofline -->"
CLOCK, MULTIPROCESSORS = 1.755e9, 132
#: Work a second of an H100 SXM at its boost clock. tf32x3: three tf32 products for one of fp32.
RATES = {
    "bf16 products": 989e12,
    "tf32x3 products": 495e12 / 3,
    "exponentials": 16 * MULTIPROCESSORS * CLOCK,
    "arithmetic": 2 * 128 * MULTIPROCESSORS * CLOCK,
    "L2": 5.5e12,
    "memory": 3.35e12,
}
B, T, H = 8, 2048, 8  # the shape of all rows: sequences, tokens, heads
K, D, WIDTH, STATES, RANK = 64, 32, 512, 16, 16


@dataclass(frozen=True)
class Work:
    """Units of each rate's kind that a kernel's forward or backward needs."""

    kernel: str
    part: str
    units: Mapping[str, float]

    def seconds(self) -> dict[str, float]:
        return {kind: amount / RATES[kind] for kind, amount in self.units.items()}


def all_work() -> list[Work]:
    return [*_free_energy(), *_linear(), *_selective(), *_scan(), *_hyper()]


def _free_energy() -> list[Work]:
    """bf16, causal, bounded, rows of 128: a key's exponentials are taken once for every block of rows."""
    pairs, values, keys = B * H * T * T / 2, B * T * H * D, B * T * H * K
    forward = {
        "bf16 products": pairs * (2 * K + 4 * D),
        "exponentials": pairs * (1 + D / 128),
        "arithmetic": pairs * (10 + 4 * D / 128),
        "memory": 2 * (2 * keys + 3 * values) + 4 * values,
    }
    # two kernels that each form the scores and their gradient; the queries' one product more, the keys' three
    backward = {
        "bf16 products": pairs * (2 * (2 * K + 4 * D) + 2 * K + 2 * K + 4 * D),
        "exponentials": pairs * (2 + 2 * D / 64),
        "arithmetic": pairs * 2 * 14,
        "memory": 2 * (2 * (2 * keys + 2 * values) + 2 * keys + values) + 4 * 4 * values,
    }
    return [
        Work("free_energy, bf16, keys 64, values 32", part, work)
        for part, work in (("forward", forward), ("backward", backward))
    ]


def _linear() -> list[Work]:
    """fp32, no decay, chunks of 16, over `[v, w, 1]` in blocks of 32 channels, for 32 key channels at a time: each
    forms the scores again,
    and values and results exist once for every piece of the keys."""
    width, chunk, piece = 2 * D + 1, 16, 32
    parts, pieces, heads = -(-width // 32), K // piece, B * T * H
    copies = 2 * (1 + pieces) * width  # values repeated, results added up
    forward = {
        "tf32x3 products": heads * pieces * (parts * 2 * chunk * piece + 2 * chunk * width + 4 * piece * width),
        "memory": 4 * heads * (2 * K + 2 * pieces * width + copies),
    }
    products = heads * pieces * (parts * 6 * chunk * piece + 6 * chunk * width + 10 * piece * width)
    backward = {
        "tf32x3 products": products,
        "memory": 4 * heads * (3 * K + 5 * pieces * width + 4 * parts * K + copies),
    }
    return [
        Work("linear, fp32, keys 64, reads of 65", part, work)
        for part, work in (("forward", forward), ("backward", backward))
    ]


def _selective() -> list[Work]:
    inputs, channels = 3, B * T * WIDTH
    state = channels * STATES
    forward = {
        "exponentials": state,
        "arithmetic": state * inputs * 5,
        "memory": 4 * channels * (1 + 2 * inputs + inputs * STATES / 32),
    }
    l2 = 4 * state * inputs * 3  # a chunk's states, written once and read twice
    work = {
        "exponentials": 2 * state,
        "arithmetic": state * inputs * 18,
        "L2": l2,
        "memory": 4 * channels * (2 + 4 * inputs),
    }
    return [
        Work("selective, 512 channels, 16 states, 3 inputs", part, w)
        for part, w in (("forward", forward), ("backward", work))
    ]


def _scan() -> list[Work]:
    elements = B * T * WIDTH
    return [
        Work("scan, 512 channels", "forward", {"arithmetic": elements * 3 * 7, "memory": 4 * elements * 3}),
        Work("scan, 512 channels", "backward", {"arithmetic": elements * 3 * 8, "memory": 4 * elements * 5}),
    ]


def _hyper() -> list[Work]:
    """HyperGLU, fp32: scores through the L2 cache, and keys, values and tables for each block of 16 rows. A mixing is
    two products of
    rank r; backward forms it three times and adds four."""
    rows = 16
    pairs, kept = B * H * T * T / 2, 4 * B * T * H * (2 * 2 * K + 2 * D)
    forward = {
        "tf32x3 products": pairs * (2 * 2 * K + 2 * D + 3 * 4 * RANK),
        "exponentials": 2 * pairs,
        "L2": 4 * pairs * (10 + (2 * K + D + 6 * RANK) / rows),
        "memory": kept,
    }
    products = pairs * (2 * 2 * 3 * K + 4 * D + 3 * (3 * 4 + 8) * RANK)
    backward = {
        "tf32x3 products": products,
        "exponentials": 7 * pairs,
        "L2": 4 * pairs * (26 + (8 * K + 3 * D + 29 * RANK) / rows),
        "memory": 3 * kept,
    }
    return [
        Work("hyper, HyperGLU, rank 16", part, work) for part, work in (("forward", forward), ("backward", backward))
    ]


def table() -> str:
    lines = [
        f"ESTIMATE for an H100 SXM, batch {B}, {T} tokens, {H} heads; not measured, see the assumptions above.",
        "",
        "| kernel | part | bound by | least time | the other bounds |",
        "|---|---|---|---|---|",
    ]
    for work in all_work():
        (kind, most), *others = sorted(work.seconds().items(), key=lambda item: -item[1])
        rest = ", ".join(f"{name} {_time(seconds)}" for name, seconds in others)
        lines.append(f"| {work.kernel} | {work.part} | {kind} | {_time(most)} | {rest} |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.tools.roofline", description="estimated bounds of the kernels on an H100"
    )
    parser.add_argument("--write", type=Path, help="a file whose table of bounds is replaced")
    asked = parser.parse_args()
    if asked.write:
        before, _, rest = asked.write.read_text("utf-8").partition(BEGIN)
        asked.write.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}", "utf-8")
    sys.stdout.write(table() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
