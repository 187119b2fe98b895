"""Which runs share a row of a board, and what the row is called: by what a user chose, not by what followed from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tasks
from backbones.mixers.errors import MixerError
from suite.config.run_config import TUNED, digest
from suite.errors import UserError
from suite.models.budget import widths_of, with_free_widths
from suite.models.candidate import Candidate, registered
from suite.models.resolve import default_options, from_canonical, resolve
from suite.records.record import Record


def task_options(made: Record) -> Any:
    """The record's options of its task. Raises DataError or ValidationError where this version has no such task or
    option.
    """
    return tasks.get(made.task).Options.model_validate(made.config["data"])


def configuration(made: Record) -> str:
    """A digest, equal for runs of one row: all but the seed counts."""
    return _digest(made, {**made.config, "data": task_options(made).portable()})


def untuned_configuration(made: Record) -> str:
    """A digest, equal for runs among which validation chooses."""
    return _digest(made, _untuned(made))


def name_of(made: Record) -> str:
    """The mixer, and what of its options, rates and hybrid differs from the usual ones."""
    hybrid = f" (hybrid {','.join(map(str, made.config['hybrid']))})" if made.config["hybrid"] else ""
    return _portable(made.mixer) + hybrid + _options_off_default(made)


def deviations(made: Record) -> tuple[str, ...]:
    """What differs from the shipped recipe for every mixer of the board."""
    shipped, differing, tuned = _shipped(made), [], {*TUNED, *task_options(made).tuned()}
    if made.data and made.data.protocol != tasks.get(made.task).protocol:
        differing.append(f"protocol {made.data.protocol}")
    if made.data and tasks.get(made.task).needs_data_dir:
        differing.append(f"data {made.data.fingerprint[:8]}")
    for section in ("data", "model", "train"):
        for name, value in made.config[section].items():
            if value != shipped[section].get(name) and (section == "model" or name not in tuned):
                differing.append(f"{name}={value}")
    return tuple(differing)


def _untuned(made: Record) -> dict[str, Any]:
    """The config without what validation chooses for each mixer."""
    options = task_options(made)
    given = _given_options(made) if options.tuned() else None
    return {
        **made.config,
        "train": {k: v for k, v in made.config["train"].items() if k not in TUNED},
        "data": {k: v for k, v in options.portable().items() if k not in options.tuned()},
        # the widths that the solver takes follow from the length, which such an option of the data may change
        "mixer_options": made.config["mixer_options"] if given is None else given,
    }


def _digest(made: Record, config: dict[str, Any]) -> str:
    kept = {k: v for k, v in config.items() if k not in ("seed", "skip_variant_layers")}
    return digest({**kept, "mixer": _portable(made.mixer)})


def _portable(mixer: str) -> str:
    """A file of a mixer counts by its name, wherever it stands; its content is in the configuration."""
    return Path(mixer).name if ".py:" in mixer else mixer


def _options_off_default(made: Record) -> str:
    """What a mixer wants said of its rows, and the options and tuned rates that differ from the usual ones."""
    solved, candidate = made.certificate.get("mixer_options", {}), _candidate(made)
    named = {name: solved[name] for name in candidate.board_options if name in solved} if candidate else {}
    given = {**named, **{name: value for name, value in (_given_options(made) or {}).items() if name not in named}}
    switches = [candidate.board_note] if candidate and candidate.board_note else []
    switches += [
        f"{name}={'on' if value is True else 'off' if value is False else value}" for name, value in given.items()
    ]
    shipped, train = _shipped(made)["train"], made.config["train"]
    switches += [f"{name}={train[name]:g}" for name in TUNED if train[name] != shipped[name]]
    switches += [f"{name}={made.config['data'][name]}" for name in sorted(task_options(made).tuned())]
    return f" ({', '.join(switches)})" if switches else ""


def _given_options(made: Record) -> dict[str, Any] | None:
    """The mixer's options that the user chose; None where nobody knows: of code that is not the suite's, or of another
    version's.
    """
    candidate = _candidate(made)
    if candidate is None:
        return None
    try:
        config = from_canonical(made.config, candidate=candidate)
        solved = candidate.plan(with_free_widths(config), tasks.get(made.task)(config.data).spec).mixer_options
    except (MixerError, UserError):
        return None
    usual = default_options(config, candidate).model_dump(mode="json") | {
        name: getattr(solved, name) for name in widths_of(config)
    }
    return {name: value for name, value in made.config["mixer_options"].items() if value not in (None, usual[name])}


def _candidate(made: Record) -> Candidate | None:
    """The record's mixer, where it is the suite's own: no board runs other code."""
    return registered(made.mixer) if made.config.get("mixer_origin") == "built-in" else None


def _shipped(made: Record) -> dict[str, Any]:
    return resolve(task=made.task, mixer="softmax", scale=made.scale).canonical()
