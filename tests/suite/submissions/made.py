"""A sound entry made by hand: two races on fashion-mnist, of a mixer of the suite and of one in a file; and forging it
as an author could, with every hash computed again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import tasks
from suite.boards.raced import race_of
from suite.config.identity import canonical_json, digest
from suite.config.run_config import OWN_ORIGINS
from suite.records import record
from suite.records.recorded import RecordedConfig
from suite.records.schema import Data, Record
from suite.submissions import entry
from suite.submissions.entry import Entry, Source
from suite.submissions.races import summarised
from suite.training.job import describe_data
from tests.suite.tiny import made_record

SOURCE = "from backbones.mixers.attention.queries import QKNorm\n\n\nclass Mine(QKNorm):\n    pass\n"
MINE = "mine.py:Mine"
TASK = "fashion-mnist"
BEST = {"fem": 0.8, MINE: 0.75}
EXAMPLES = {"valid": 500, "test": 2000}
Content = dict[str, Any]


@cache
def real_data() -> Data:
    task = tasks.get(TASK)()
    task.load()
    return describe_data(task)


def run(mixer: str, rate: float, seed: int, file: Path | None = None) -> Record:
    """A run as it would be recorded: accuracies are fractions of the examples, no two runs have equal losses."""
    name = f"{file}:Mine" if file else mixer
    random = np.random.default_rng([len(mixer), round(rate * 1e7), seed])
    base = BEST[mixer] - 0.03 * abs(np.log(rate / 2e-3)) + random.normal(0, 0.01)
    valid, test = round(500 * base) / 500, round(2000 * base) / 2000
    label = f"{mixer.partition('.')[0]}-{rate:g}-{seed}"
    made = made_record(name, test, valid=valid, seed=seed, sets=(f"lr={rate!r}",), name=label)
    trace = [(step, 2.4 / step**0.2 + 0.01 * random.random()) for step, _ in made.loss_trace]
    update = {"loss_trace": trace, "data": real_data(), "peak_memory_bytes": 2**30, "n_evaluated": EXAMPLES}
    return made.model_copy(update=update).sealed()


@cache
def whole_race(mixer: str, file: Path | None = None) -> tuple[Record, ...]:
    race = race_of(made_record("fem"))
    assert race is not None
    first = [run(mixer, rate, seed, file) for rate in race.rates for seed in race.seeds[:4]]
    means = {r: np.mean([m.metrics["valid"]["top1"] for m in first if m.config.train.lr == r]) for r in race.rates}
    finalists = sorted(race.rates, key=lambda rate: -means[rate])[:2]
    return (*first, *(run(mixer, rate, seed, file) for rate in finalists for seed in race.seeds[4:]))


def sound_entry(root: Path) -> Path:
    """Writes `entries/ada` below a folder."""
    file = root / "mine.py"
    file.write_text(SOURCE)
    folder = root / "entries" / "ada"
    for made in (*whole_race("fem"), *whole_race(MINE, file)):
        path = folder / entry.record_path(made)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry.record_text(made))
    (folder / entry.NOTES).write_text("A query is normalised.\n")
    write_source(folder, SOURCE)
    relist(folder)
    return folder


def write_source(folder: Path, text: str) -> str:
    """Writes the source where its hash demands it; returns the origin of its mixer."""
    origin = f"mine.py@{sha256(text.encode()).hexdigest()[:12]}"
    path = folder / entry.source_path(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return origin


def records(folder: Path) -> dict[str, Record]:
    """Those that can be read, by path."""
    found = {}
    for path in sorted((folder / entry.RECORDS).rglob("*.json")):
        try:
            found[path.relative_to(folder).as_posix()] = record.read(path)
        except record.RecordError:
            continue
    return found


def relist(folder: Path, author: str = "ada") -> None:
    """Writes the document again, as the suite would for the records that are there."""
    sources = []
    for path in sorted((folder / entry.SOURCES).rglob("*.py")):
        origin = f"{path.name}@{path.parent.name}"
        name = path.relative_to(folder).as_posix()
        sources.append(Source(origin=origin, path=name, sha256=sha256(path.read_bytes()).hexdigest()))
    found = records(folder)
    hashes = {
        path.relative_to(folder).as_posix(): json.loads(path.read_text())["hash"]
        for path in sorted((folder / entry.RECORDS).rglob("*.json"))
    }
    document = Entry(
        author=author,
        notes=sha256((folder / entry.NOTES).read_bytes()).hexdigest(),
        sources=tuple(sources),
        races=tuple(summarised(found.values())),
        records=hashes,
    )
    entry.write(folder, document)


def path_of(folder: Path, mixer: str = "fem", seed: int = 0, rate: float = 2e-3) -> Path:
    """The file of a run, by default of the row's rate."""
    return folder / entry.RECORDS / f"{TASK}-board" / f"{mixer.partition('.')[0]}-{rate:g}-{seed}.json"


def sealed(content: Content) -> Content:
    """A record's content with identity, group and hash computed again where its config can be read."""
    try:
        config = RecordedConfig.model_validate(content["config"])
        content = {**content, "identity": config.identity, "group": config.group}
    except ValueError:
        pass
    content = {key: value for key, value in content.items() if key != "hash"}
    return {**content, "hash": digest(content)}


def forge(folder: Path, change: Callable[[Content], object], path: Path | None = None, *, list_again: bool = True):
    """Changes a record, and computes everything that an author can compute again."""
    path = path or path_of(folder)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(canonical_json(sealed(content)) + "\n")
    if list_again:
        relist(folder)


def edit_document(folder: Path, change: Callable[[Content], object]) -> None:
    path = folder / entry.NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def copy_of(template: Path, target: Path) -> Path:
    """A copy of `entries/ada` below another folder."""
    return Path(shutil.copytree(template, target / "entries" / "ada", symlinks=True))


def is_third_party(made: Record) -> bool:
    return made.config.mixer_origin not in OWN_ORIGINS
