"""Which runs share a row of a board, and what the row is called: by what a user chose, not by what followed from it."""

from __future__ import annotations

from typing import Any

import tasks
from suite.config.run_config import TUNED, digest
from suite.models.budget import widths_of, with_free_widths
from suite.models.candidate import Candidate, registered
from suite.models.resolve import default_options, resolve
from suite.records.schema import Record


def configuration(made: Record) -> str:
    """A digest, equal for runs of one row: all but the seed counts."""
    return _digest(made.config.portable())


def untuned_configuration(made: Record) -> str:
    """A digest, equal for runs among which validation chooses."""
    return _digest(_untuned(made))


def name_of(made: Record) -> str:
    """The mixer, and what of its options, rates and hybrid differs from the usual ones."""
    hybrid = f" (hybrid {','.join(map(str, made.config.hybrid))})" if made.config.hybrid else ""
    return made.mixer + hybrid + _options_off_default(made)


def deviations(made: Record) -> tuple[str, ...]:
    """What differs from the shipped recipe for every mixer of the board."""
    task, differing, tuned = tasks.built_in(made.task), [], {*TUNED, *made.config.data.tuned()}
    if task is None:
        return ()
    if made.data.protocol != task.protocol:
        differing.append(f"protocol {made.data.protocol}")
    if task.needs_data_dir:
        differing.append(f"data {made.data.fingerprint[:8]}")
    usual, own = _shipped(made), made.config.portable()
    for section in ("data", "model", "train"):
        for name, value in own[section].items():
            if value != usual[section].get(name) and (section == "model" or name not in tuned):
                differing.append(f"{name}={value}")
    return tuple(differing)


def _untuned(made: Record) -> dict[str, Any]:
    """The config without what validation chooses for each mixer."""
    config, tuned = made.config.portable(), made.config.data.tuned()
    given = _given_options(made) if tuned else None
    return {
        **config,
        "train": {k: v for k, v in config["train"].items() if k not in TUNED},
        "data": {k: v for k, v in config["data"].items() if k not in tuned},
        # the widths that the solver takes follow from the length, which such an option of the data may change
        "mixer_options": config["mixer_options"] if given is None else given,
    }


def _digest(config: dict[str, Any]) -> str:
    return digest({k: v for k, v in config.items() if k not in ("seed", "skip_variant_layers")})


def _options_off_default(made: Record) -> str:
    """What a mixer wants said of its rows, and the options and tuned rates that differ from the usual ones."""
    solved, candidate = made.certificate.mixer_options.model_dump(mode="json"), _candidate(made)
    named = {name: solved[name] for name in candidate.board_options if name in solved} if candidate else {}
    given = {**named, **{name: value for name, value in (_given_options(made) or {}).items() if name not in named}}
    switches = [candidate.board_note] if candidate and candidate.board_note else []
    switches += [
        f"{name}={'on' if value is True else 'off' if value is False else value}" for name, value in given.items()
    ]
    config = made.config.portable()
    usual = _shipped(made)["train"] if tasks.built_in(made.task) else {}
    switches += [f"{name}={config['train'][name]:g}" for name in TUNED if config["train"][name] != usual.get(name)]
    switches += [f"{name}={config['data'][name]}" for name in sorted(made.config.data.tuned())]
    return f" ({', '.join(switches)})" if switches else ""


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


def _shipped(made: Record) -> dict[str, Any]:
    return resolve(task=made.task, mixer="softmax", scale=made.scale).canonical()
