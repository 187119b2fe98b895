"""Counted work of each Triton kernel as it is written, forward and backward, for `kernels.tools.roofline`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CLOCK, MULTIPROCESSORS = 1.755e9, 132
#: Work per second of an H100 SXM at its boost clock. tf32x3: three tf32 products for one of fp32.
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
    """Forward and backward work of one call: an amount for each kind of `RATES`."""

    call: str
    forward: Mapping[str, float]
    backward: Mapping[str, float]


def free_energy() -> Work:
    """bf16, causal, bounded, rows of 128: a key's exponentials are taken once for every block of rows."""
    pairs, values, keys = B * H * T * T / 2, B * T * H * D, B * T * H * K
    forward = {
        "bf16 products": pairs * (2 * K + 4 * D),
        "exponentials": pairs * (1 + D / 128),
        "arithmetic": pairs * (10 + 4 * D / 128),
        "memory": 2 * (2 * keys + 3 * values) + 4 * values,
    }
    # two kernels, each of which computes the scores and their gradient; then one product for queries, three for keys
    backward = {
        "bf16 products": pairs * (2 * (2 * K + 4 * D) + 2 * K + 2 * K + 4 * D),
        "exponentials": pairs * (2 + 2 * D / 64),
        "arithmetic": pairs * 2 * 14,
        "memory": 2 * (2 * (2 * keys + 2 * values) + 2 * keys + values) + 4 * 4 * values,
    }
    return Work("free_energy, bf16, keys 64, values 32", forward, backward)


def linear() -> Work:
    """fp32, no decay, chunks of 16, over `[v, w, 1]` in blocks of 32 channels, for 32 key channels at a time.

    Each block computes the scores again, and values and results exist once for every piece of the keys.
    """
    width, chunk, piece = 2 * D + 1, 16, 32
    parts, pieces, heads = -(-width // 32), K // piece, B * T * H
    copies = 2 * (1 + pieces) * width  # values repeated, results added up
    forward = {
        "tf32x3 products": heads * pieces * (parts * 2 * chunk * piece + 2 * chunk * width + 4 * piece * width),
        "memory": 4 * heads * (2 * K + 2 * pieces * width + copies),
    }
    backward = {
        "tf32x3 products": heads * pieces * (parts * 6 * chunk * piece + 6 * chunk * width + 10 * piece * width),
        "memory": 4 * heads * (3 * K + 5 * pieces * width + 4 * parts * K + copies),
    }
    return Work("linear, fp32, keys 64, reads of 65", forward, backward)


def selective() -> Work:
    """fp32, one pass for all inputs; backward writes a chunk's states once and reads them twice."""
    inputs, channels = 3, B * T * WIDTH
    state = channels * STATES
    forward = {
        "exponentials": state,
        "arithmetic": state * inputs * 5,
        "memory": 4 * channels * (1 + 2 * inputs + inputs * STATES / 32),
    }
    backward = {
        "exponentials": 2 * state,
        "arithmetic": state * inputs * 18,
        "L2": 4 * state * inputs * 3,
        "memory": 4 * channels * (2 + 4 * inputs),
    }
    return Work("selective, 512 channels, 16 states, 3 inputs", forward, backward)


def scan() -> Work:
    """fp32; an associative scan takes about seven steps per element."""
    elements = B * T * WIDTH
    forward = {"arithmetic": elements * 3 * 7, "memory": 4 * elements * 3}
    return Work("scan, 512 channels", forward, {"arithmetic": elements * 3 * 8, "memory": 4 * elements * 5})


def hyper() -> Work:
    """HyperGLU, fp32: scores through the L2 cache; keys, values and tables for each block of 16 rows.

    A mixing is two products of rank r. Backward has nine for each set, whose scores are mixed again in four loops, and
    six for the mixing after the activation.
    """
    rows = 16
    pairs, stored = B * H * T * T / 2, 4 * B * T * H * (2 * 2 * K + 2 * D)
    forward = {
        "tf32x3 products": pairs * (2 * 2 * K + 2 * D + 3 * 4 * RANK),
        "exponentials": 2 * pairs,
        "L2": 4 * pairs * (10 + (2 * K + D + 6 * RANK) / rows),
        "memory": stored,
    }
    backward = {
        "tf32x3 products": pairs * (2 * 2 * 3 * K + 4 * D + (2 * 9 + 6) * 2 * RANK),
        "exponentials": 9 * pairs,
        "L2": 4 * pairs * (31 + (8 * K + 3 * D + 31 * RANK) / rows),
        "memory": 3 * stored,
    }
    return Work("hyper, HyperGLU, rank 16", forward, backward)
