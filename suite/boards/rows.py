"""Which runs share a row of a board, and what the row is called: by what a user chose, not by what followed from it."""

from __future__ import annotations

from typing import Any

import tasks
from suite.config.identity import digest, without
from suite.config.run_config import BUILT_IN, OF_A_ROW, OF_A_RUN, TRAINING_VERSION, TUNED, RunConfig
from suite.models.budget import widths_of, with_free_widths
from suite.models.candidate import Candidate, registered
from suite.models.resolve import default_options, resolve
from suite.records.schema import Record

#: Options of the backbone that belong to a row, by their names in `model`.
MODEL_OPTIONS = tuple(name.partition(".")[2] for name in OF_A_ROW if name.startswith("model."))


def configuration(made: Record) -> str:
    """A digest, equal for runs of one row: all but the seed counts."""
    return digest([made.versions.mixer, without(made.config.recorded(), OF_A_RUN)])


def untuned_configuration(made: Record) -> str:
    """A digest, equal for runs among which validation chooses."""
    config, tuned = made.config, made.config.tuned
    kept = without(config.recorded(), (*OF_A_RUN, *tuned))
    if any(name.startswith("data.") for name in tuned):
        # the widths that the solver takes follow from the length, which such an option of the data may change
        given = _given_options(made)
        kept["mixer_options"] = kept["mixer_options"] if given is None else given
    return digest([made.versions.mixer, kept])


def name_of(made: Record) -> str:
    """The mixer, and what of its options, rates, version and hybrid differs from the usual ones."""
    hybrid = f" (hybrid {','.join(map(str, made.config.hybrid))})" if made.config.hybrid else ""
    return made.mixer + hybrid + _options_off_default(made)


def is_retired(made: Record) -> bool:
    """Whether the run is of an earlier version of one of the suite's mixers: it has its own row and no rank."""
    return made.config.mixer_origin == BUILT_IN and not made.recounted


def deviations(made: Record) -> tuple[str, ...]:
    """What differs from the shipped recipe for every mixer of the board."""
    task, differing, tuned = tasks.built_in(made.task), [], made.config.tuned
    if task is None:
        return ()
    if made.versions.task != task.version:
        differing.append(f"version {made.versions.task} of the task")
    if made.versions.training != TRAINING_VERSION:
        differing.append(f"version {made.versions.training} of training")
    if task.needs_data_dir:
        differing.append(f"data {made.data.fingerprint[:8]}")
    usual, own = _usual(made).portable(), made.config.portable()
    for section in ("data", "model", "train"):
        for name, value in own[section].items():
            if value != usual[section].get(name) and f"{section}.{name}" not in (*tuned, *OF_A_ROW):
                differing.append(f"{name}={value}")
    return tuple(differing)


def _options_off_default(made: Record) -> str:
    """The remark of a mixer on its rows, and the options and tuned rates that differ from the usual ones."""
    solved, candidate = made.certificate.mixer_options.model_dump(mode="json"), _candidate(made)
    named = {name: solved[name] for name in candidate.board_options if name in solved} if candidate else {}
    given = {**named, **{name: value for name, value in (_given_options(made) or {}).items() if name not in named}}
    switches = [candidate.board_note] if candidate and candidate.board_note else []
    if is_retired(made):
        switches.append(f"version {made.versions.mixer}")
    switches += [f"{name}={_shown(value)}" for name, value in {**given, **_row_options(made)}.items()]
    return f" ({', '.join(switches)})" if switches else ""


def _shown(value: object) -> str:
    return (
        "on" if value is True else "off" if value is False else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _row_options(made: Record) -> dict[str, Any]:
    """Options of the backbone that belong to the row, and tuned ones, where they differ from the usual values. Tuned
    options of the data are always named.
    """
    own = made.config.portable()
    usual = _usual(made).portable() if tasks.built_in(made.task) else {"model": {}, "train": {}}
    changed = {}
    for section, names in (("model", MODEL_OPTIONS), ("train", TUNED)):
        for name in names:
            if name in own[section] and own[section][name] != usual[section].get(name):
                changed[name] = own[section][name]
    tuned = [name.partition(".")[2] for name in made.config.tuned if name.startswith("data.")]
    return changed | {name: own["data"][name] for name in tuned}


def _given_options(made: Record) -> dict[str, Any] | None:
    """The mixer's options that the user chose; None where nobody knows: of code that is not the suite's."""
    config, candidate = made.config, _candidate(made)
    if candidate is None:
        return None
    solved = candidate.plan(with_free_widths(config), made.spec).mixer_options
    usual = default_options(config, candidate).model_dump(mode="json") | {
        name: getattr(solved, name) for name in widths_of(config)
    }
    given = config.mixer_options.model_dump(mode="json")
    return {name: value for name, value in given.items() if value not in (None, usual[name])}


def _candidate(made: Record) -> Candidate | None:
    """The record's mixer, where it is the suite's own: no board runs other code."""
    return registered(made.mixer) if made.recounted else None


def _usual(made: Record) -> RunConfig:
    """The shipped recipe of the record's task and scale."""
    return resolve(task=made.task, mixer="softmax", scale=made.scale)
