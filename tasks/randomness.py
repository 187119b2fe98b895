"""Randomness as a pure function of (seed, step): a run that resumes has no state to restore and nothing to replay."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

# The first number of every key, so that the streams of one seed are independent. Keys have a fixed length: numpy pads
# shorter ones with zeros.
ORDER, AUGMENT, WINDOWS, SAMPLE, MIX, EXAMPLES = 1, 2, 3, 4, 5, 6


def generator(stream: int, seed: int, step: int, position: int = 0) -> np.random.Generator:
    """A numpy generator for one stream, seed, step and position in the batch; all ≥ 0."""
    return np.random.default_rng([stream, seed, step, position])


@contextmanager
def seeded(stream: int, seed: int, step: int, position: int = 0) -> Iterator[None]:
    """Seeds the global generators of Python, NumPy and PyTorch (CPU), and restores them afterwards. For library
    transforms that draw from them.
    """
    with restored_generators():
        seed_all(stream, seed, step, position)
        yield


def seed_all(stream: int, seed: int, step: int, position: int = 0) -> None:
    """Seeds the global generators of Python, NumPy and PyTorch (CPU). Inside `restored_generators` this is many
    times cheaper than `seeded`.
    """
    words = [int(word) for word in np.random.SeedSequence([stream, seed, step, position]).generate_state(2, np.uint32)]
    random.seed(words[0] << 32 | words[1])
    np.random.seed(words)
    torch.default_generator.manual_seed(words[0] << 32 | words[1])


@contextmanager
def restored_generators() -> Iterator[None]:
    """Restores the global generators of Python, NumPy and PyTorch (CPU) afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def shuffled_batches(n: int, batch_size: int, seed: int, start_step: int = 0) -> Iterator[NDArray[np.int64]]:
    """Endless batches of indices in [0, n), those of steps `start_step`, `start_step` + 1, … of one endless stream.

    The stream is a permutation of all n per epoch, drawn from (seed, epoch); a batch may span two epochs.
    """
    epochs: dict[int, NDArray[np.int64]] = {}
    step = start_step
    while True:
        stream = np.arange(step * batch_size, (step + 1) * batch_size)
        wanted = {int(epoch): None for epoch in np.unique(stream // n)}
        epochs = {
            epoch: epochs[epoch] if epoch in epochs else generator(ORDER, seed, epoch).permutation(n)
            for epoch in wanted
        }
        yield np.array([epochs[position // n][position % n] for position in stream.tolist()], dtype=np.int64)
        step += 1


def evenly_spread(n: int, limit: int) -> NDArray[np.int64]:
    """Indices of at most `limit` of n examples, at equal distances (all of them for limit 0 or ≥ n)."""
    if limit == 0 or limit >= n:
        return np.arange(n)
    return (2 * np.arange(limit) + 1) * n // (2 * limit)


def permuted(places: NDArray[np.int64], n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The entries at `places` of a random permutation of range(n), drawn from (seed, epoch) and never stored.

    A Feistel network of six rounds over an even number of bits, applied again to results of n or more (cycle walking:
    Black and Rogaway, CT-RSA 2002). Memory and time depend on `places` alone.
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = generator(ORDER, seed, epoch).integers(0, 2**63, size=(6, 1), dtype=np.uint64)
    made = places.astype(np.uint64)
    outside = np.ones(len(made), dtype=bool)
    while outside.any():
        left, right = made[outside] >> half, made[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        made[outside] = left << half | right
        outside = made >= n
    return made.astype(np.int64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit depends on every bit."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
