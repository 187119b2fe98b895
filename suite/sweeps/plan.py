"""From a command line to the entrants of a sweep: every mixer on every task, with every value of a grid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.mixers.errors import MixerError
from suite.errors import UserError
from suite.models.resolve import Request, resolve_run
from suite.statistics.race import Race, window
from suite.sweeps.entrant import Entrant, entrant

MOST_SEEDS = 1000


@dataclass(frozen=True)
class Wanted:
    """What a command line asks for.

    tasks, mixers: names; every mixer is raced on every task.
    scale: of the recipe.
    sets: `key=value`, or `key=a,b` for several values; several learning rates are the rates of the race.
    seeds: of each row.
    rates: how many learning rates, a factor of 3 apart around the recipe's.
    hybrid: layers that stay softmax.
    data_dir: of the tasks' data.
    """

    tasks: tuple[str, ...]
    mixers: tuple[str, ...]
    scale: str
    sets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = tuple(range(8))
    rates: int = 3
    hybrid: str | None = None
    data_dir: Path | None = None


@dataclass(frozen=True)
class Left:
    """A mixer that cannot be raced on a task, and why, in one line."""

    task: str
    mixer: str
    reason: str


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a sweep.

    Args:
        text: a number of seeds (`8`), a range (`0-7`) or a list (`0,1,2`); ranges may be listed too.

    Returns:
        The seeds, in the order given.

    Raises:
        UserError: the text is none of these, or names a seed twice or too many.
    """
    if re.fullmatch(r"\d{1,4}", text) and "," not in text:
        seeds = list(range(int(text)))
    else:
        seeds = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not 0 <= last - first < MOST_SEEDS or last >= 2**31:
                raise UserError(f"--seeds {text[:80]!r}: give a number (8), a range (0-7) or a list (0,1,2)")
            seeds += range(first, last + 1)
    if not 0 < len(seeds) <= MOST_SEEDS:
        raise UserError(f"--seeds {text[:80]!r}: 1 to {MOST_SEEDS} seeds are allowed, these are {len(seeds)}")
    twice = [seed for i, seed in enumerate(seeds) if seed in seeds[:i]]
    if twice:
        raise UserError(f"--seeds {text[:80]!r}: seed {twice[0]} is there twice; each seed is run once")
    return tuple(seeds)


def entrants(wanted: Wanted) -> tuple[list[Entrant], list[Left]]:
    """The races of a sweep.

    Args:
        wanted: what the command line asks for.

    Returns:
        The entrants by task, and what cannot be raced (a mixer that does not fit a task or its budget).

    Raises:
        UserError: an option is invalid, or nothing is left to race.
        DataError: there is no such task.
        MixerError: there is no such mixer.
    """
    found, left = list[Entrant](), list[Left]()
    for task, mixer in itertools.product(wanted.tasks, wanted.mixers):
        for sets, label in _grid(wanted, task, mixer):
            try:
                found.append(_entrant(wanted, task, mixer, sets, label))
            except UserError as problem:
                if len(wanted.tasks) * len(wanted.mixers) == 1:
                    raise
                left.append(Left(task, label, str(problem)))
    if not found:
        raise UserError(f"nothing to race: {left[0].mixer} on {left[0].task}: {left[0].reason}")
    if twice := {each.base.identity for each in found if sum(o.base.identity == each.base.identity for o in found) > 1}:
        label = next(each.label for each in found if each.base.identity in twice)
        raise UserError(f"{label} is named twice; each mixer is raced once")
    return found, left


def _entrant(wanted: Wanted, task: str, mixer: str, sets: Sequence[str], label: str) -> Entrant:
    rates, others = None, []
    for each in sets:
        name, _, value = each.partition("=")
        if name in ("lr", "train.lr"):
            rates = _rates(value)
        else:
            others.append(each)
    resolved = resolve_run(**_request(wanted, task, mixer, others))
    if not resolved.candidate.ranked:  # baselines are unranked lines of a board, with their own rate
        rates = (resolved.config.train.lr,)
    rates = rates or window(resolved.config.train.lr, wanted.rates)
    given = ["--task", task, "--mixer", mixer, "--scale", wanted.scale]
    given += ["--hybrid", wanted.hybrid] if wanted.hybrid else []
    given += ["--data-dir", str(wanted.data_dir)] if wanted.data_dir else []
    given += [word for each in others for word in ("--set", each)]
    return entrant(resolved, Race(rates, wanted.seeds), label=label, data_dir=wanted.data_dir, given=tuple(given))


def _request(wanted: Wanted, task: str, mixer: str, sets: Sequence[str]) -> Request:
    return Request(task=task, mixer=mixer, scale=wanted.scale, sets=sets, hybrid=wanted.hybrid)


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise UserError(f"--set lr={text[:80]}: positive numbers are allowed, separated by commas")
    return rates


def _grid(wanted: Wanted, task: str, mixer: str) -> list[tuple[tuple[str, ...], str]]:
    """The combinations of values, each with the label of its row. A value that is valid as it is, is one value."""
    choices = []
    for each in wanted.sets:
        name, sign, value = each.partition("=")
        several = "," in value and name not in ("lr", "train.lr") and not _valid(wanted, task, mixer, each)
        choices.append([f"{name}{sign}{part.strip()}" for part in value.split(",")] if several else [each])
    made = []
    for sets in itertools.product(*choices):
        varied = [each for each, options in zip(sets, choices, strict=True) if len(options) > 1]
        words = [mixer, *([f"hybrid {wanted.hybrid}"] if wanted.hybrid else []), *varied]
        made.append((sets, " ".join(words)))
    return made


def _valid(wanted: Wanted, task: str, mixer: str, each: str) -> bool:
    try:
        resolve_run(**_request(wanted, task, mixer, [each]))
    except MixerError:
        raise
    except UserError:
        return False
    return True
