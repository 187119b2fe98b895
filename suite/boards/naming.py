"""Which runs share a row of a board, and what rows and boards are called: by what a user chose, not by what followed
from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import tasks
from suite.config.identity import canonical_json, digest, without
from suite.config.run_config import BUILT_IN, OF_A_ROW, OF_A_RUN, TRAINING_VERSION, TUNED
from suite.models.budget import widths_of, with_free_widths
from suite.models.candidate import Candidate, registered
from suite.models.resolve import shipped_config
from suite.models.resolve_defaults import default_options
from suite.records.schema import Record

#: Values of options by section (data, model, train), as plain JSON values.
Usual = Mapping[str, Mapping[str, Any]]
#: Deviations from the recipe in the name of a run.
MOST_SHOWN = 4
#: Options that belong to a row, by section.
ROW_OPTIONS = {"model": tuple(name.partition(".")[2] for name in OF_A_ROW if name.startswith("model.")), "train": TUNED}


def configuration(made: Record) -> str:
    """A digest, equal for runs of one row: all but the seed counts."""
    return digest([made.versions.mixer, without(made.config.recorded(), OF_A_RUN)])


def untuned_configuration(made: Record) -> str:
    """A digest, equal for runs among which validation chooses."""
    config, tuned = made.config, made.config.tuned
    kept = without(config.recorded(), (*OF_A_RUN, *tuned))
    if any(name.startswith("data.") for name in tuned):
        # the widths that the solver chooses follow from the length, which such an option of the data may change
        given = _given_options(made)
        kept["mixer_options"] = kept["mixer_options"] if given is None else given
    return digest([made.versions.mixer, kept])


def is_retired(made: Record) -> bool:
    """Whether the run is of an earlier version of one of the suite's mixers: it has its own row and no rank."""
    return made.config.mixer_origin == BUILT_IN and not made.recounted


def usual(records: Sequence[Record]) -> Usual:
    """The options that the runs of a board usually have: those of the shipped recipe. A third party's recipe is not
    loaded: for its task, the most frequent ones.
    """
    newest = records[-1]
    if tasks.built_in(newest.task):
        return shipped_config(newest.task, newest.scale).portable()
    configs = [made.config.portable() for made in records]
    keys = [canonical_json([config["model"], config["train"]]) for config in configs]
    return configs[keys.index(Counter(keys).most_common(1)[0][0])]


def deviations(made: Record) -> tuple[str, ...]:
    """What differs from the shipped recipe for every mixer of the board."""
    task, differing = tasks.built_in(made.task), []
    if task is None:
        return ()
    if made.versions.task != task.version:
        differing.append(f"version {made.versions.task} of the task")
    if made.versions.training != TRAINING_VERSION:
        differing.append(f"version {made.versions.training} of training")
    if task.needs_data_dir:
        differing.append(f"data {made.data.fingerprint[:8]}")
    recipe, own = usual([made]), made.config.portable()
    for section in ("data", "model", "train"):
        for name, value in own[section].items():
            if value != recipe[section].get(name) and f"{section}.{name}" not in (
                *made.config.tuned,
                *OF_A_ROW,
                *OF_A_RUN,
            ):
                differing.append(f"{name}={value}")
    return tuple(differing)


def entry_of(made: Record, common: Usual) -> str:
    """What a user entered: the mixer, its hybrid and the options given for it. The same on the boards of all tasks,
    whatever widths were solved and whatever rate won.
    """
    named = {**(_given_options(made) or {}), **_unusual_options(made, common, tuned=False)}
    return made.mixer + _hybrid(made) + (f" ({_listed(named)})" if named else "")


def name_of(made: Record, common: Usual, *, raced: bool = False) -> str:
    """The mixer, and what of its hybrid, version, options and rates differs from the usual ones.

    raced: whether a race chose its rate, which is then no part of the name.
    """
    candidate = _candidate(made)
    remarks = [candidate.board_note] if candidate and candidate.board_note else []
    remarks += [f"version {made.versions.mixer}"] if is_retired(made) else []
    named = _named_options(made, common, tuned=not raced)
    remarks += [_listed(named)] if named else []
    return made.mixer + _hybrid(made) + (f" ({', '.join(remarks)})" if remarks else "")


def configuration_name(made: Record) -> str:
    """The mixer with all that differs from the recipe for its row: runs that differ in their seeds share it."""
    named = {**(_given_options(made) or {}), **_unusual_options(made, usual([made]), tuned=True)}
    data = [name.partition(".")[2] for name in made.config.tuned if name.startswith("data.")]
    common, own = usual([made])["data"], made.config.portable()["data"]
    named |= {name: own[name] for name in data if own[name] != common.get(name)}
    return made.mixer + _hybrid(made) + (f" ({_listed(named)})" if named else "")


def run_name(made: Record) -> str:
    """A run's name in the tracking store: its configuration, scale and seed, and what else differs from the recipe."""
    parts = [configuration_name(made), made.scale, f"seed {made.seed}", *_shortened(deviations(made))]
    return " · ".join(parts)


def _shortened(differing: Sequence[str]) -> list[str]:
    """The first ones, and how many more there are."""
    shown_ones = ", ".join(differing[:MOST_SHOWN])
    more = len(differing) - MOST_SHOWN
    return [shown_ones + (f" and {more} more" if more > 0 else "")] if differing else []


def _hybrid(made: Record) -> str:
    return f" (hybrid {','.join(map(str, made.config.hybrid))})" if made.config.hybrid else ""


def _listed(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in named.items())


def shown(value: object) -> str:
    """The value of an option as names have it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _named_options(made: Record, common: Usual, *, tuned: bool) -> dict[str, Any]:
    """Options of the mixer that a verdict is about or that a user chose, then unusual options of the row, then tuned
    options of the data.
    """
    solved, candidate = made.certificate.mixer_options.model_dump(mode="json"), _candidate(made)
    named = {name: solved[name] for name in candidate.board_options if name in solved} if candidate else {}
    named |= {name: value for name, value in (_given_options(made) or {}).items() if name not in named}
    named |= _unusual_options(made, common, tuned=tuned)
    data = [name.partition(".")[2] for name in made.config.tuned if name.startswith("data.")]
    return named | {name: made.config.portable()["data"][name] for name in data}


def _unusual_options(made: Record, common: Usual, *, tuned: bool) -> dict[str, Any]:
    """Options of a row that differ from the usual ones; the tuned ones of training only where that is asked."""
    own, named = made.config.portable(), dict[str, Any]()
    for section, names in ROW_OPTIONS.items():
        present = [name for name in names if name in own[section] and (tuned or section != "train")]
        named |= {name: own[section][name] for name in present if own[section][name] != common[section].get(name)}
    return named


def _given_options(made: Record) -> dict[str, Any] | None:
    """The mixer's options that the user chose; None where that is unknown: for code that is not the suite's."""
    config, candidate = made.config, _candidate(made)
    if candidate is None:
        return None
    solved = candidate.plan(with_free_widths(config), made.spec).mixer_options
    default = default_options(config, candidate).model_dump(mode="json") | {
        name: getattr(solved, name) for name in widths_of(config)
    }
    given = config.mixer_options.model_dump(mode="json")
    return {name: value for name, value in given.items() if value not in (None, default[name])}


def _candidate(made: Record) -> Candidate | None:
    """The record's mixer, where it is the suite's own: no board runs other code."""
    return registered(made.mixer) if made.recounted else None
