"""The rows of an entry that can be reproduced here, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from suite.boards.naming import entry_of, usual
from suite.config.run_config import TRAINING_VERSION
from suite.records import provenance, runs_folder
from suite.records.schema import Record
from suite.submissions.machines import made_here
from suite.submissions.races import races, result
from suite.submissions.replay import CPU, obstacle
from suite.submissions.verify import Verified


@dataclass(frozen=True)
class Row:
    """A row of a board.

    label: its task, scale and mixer, for readers.
    mixer: what boards call it.
    runs: its runs that can be trained again, by path, in the order of their seeds.
    obstacle: why the row cannot be reproduced; empty where it can.
    """

    label: str
    mixer: str
    runs: Mapping[str, Record]
    obstacle: str = ""

    @property
    def origins(self) -> frozenset[str]:
        """Where the mixers of its runs come from."""
        return frozenset(made.config.mixer_origin for made in self.runs.values())


def rows(found: Verified, count: int, *, trusted: bool, mixers: Collection[str] = ()) -> list[Row]:
    """The rows of what was verified: the runs of each race with the rate that won.

    Args:
        found: from `verify`.
        count: seeds of each row that are to be trained again.
        trusted: whether the mixers' files may run.
        mixers: only rows of these, by their name in records; empty: all.

    Returns:
        Every row, those that cannot be reproduced with the reason.
    """
    paths = {id(made): path for path, made in found.records.items()}
    here, own = provenance.hardware(CPU), frozenset(path.name for path in runs_folder.all_runs())
    every = []
    for runs in races(found.records.values()):
        first = runs[0]
        if mixers and first.mixer not in mixers:
            continue
        mixer = entry_of(first, usual([first]))[:255]
        label = f"{first.task} · {first.scale} · {mixer}"
        race = result(runs)
        if race is None or race.chosen is None:
            every.append(Row(label, mixer, {}, "its race has not ended, so that it has no row"))
            continue
        final = race.finals[race.chosen]
        against = {id(made): _obstacle(found, made, trusted) or made_here(made, here, own) for made in final}
        able = {paths[id(made)]: made for made in final if not against[id(made)]}
        reasons = Counter(reason for reason in against.values() if reason)
        few = f"it has {len(able)} seeds, {count} were requested" if len(able) < count else ""
        every.append(Row(label, mixer, able, few and (max(reasons, key=reasons.__getitem__) if reasons else few)))
    return every


def _obstacle(found: Verified, made: Record, trusted: bool) -> str:
    if made.versions.training != TRAINING_VERSION:
        return f"it was trained by version {made.versions.training} of the training loop, which is not here"
    return obstacle(made, found.sources, trusted=trusted)
