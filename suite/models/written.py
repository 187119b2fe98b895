"""The config of a run that was started earlier, read from its folder. Code that it names runs only if it is unchanged.

Resuming a run and generating text with it need the run's own task and mixer, so these two may import a file or a
package. A folder may come from somewhere else: what would be executed is announced, and its recorded hash is compared,
before anything of it is executed. Commands that only read records use `suite.models.candidate.registered` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import tasks
from backbones.mixers import registry as mixers
from suite.config.run_config import OWN_ORIGINS, RunConfig
from suite.console import say
from suite.errors import UserError
from suite.models.candidate import Candidate, parse, registered
from suite.models.resolve import Resolved


def resolve_written(content: Mapping[str, Any]) -> Resolved:
    """The config of a run that was started earlier, and its candidate. Imports the file or the package of its task and
    of its mixer, where they do not ship with the suite: announced on stderr, and only as they were recorded.

    Args:
        content: what `RunConfig.canonical` returned.

    Returns:
        The config and the candidate.

    Raises:
        UserError: this version cannot read it, or a file or a package that it names is missing or has changed.
        DataError: there is no such task.
        MixerError: there is no such mixer.
    """
    for kind in ("task", "mixer"):
        if not isinstance(content.get(kind), str):
            raise UserError(f"this config was written by another version: it names no {kind}")
        _require_recorded_code(kind, content[kind], content.get(f"{kind}_origin"))
    candidate = parse(content["mixer"])
    return Resolved(from_canonical(content, candidate=candidate), candidate)


def from_canonical(content: Mapping[str, Any], *, candidate: Candidate | None = None) -> RunConfig:
    """The RunConfig that `RunConfig.canonical` wrote in this process or, with `resolve_written`, in an earlier one.

    Args:
        content: its plain JSON values.
        candidate: what its mixer names, where the caller has looked it up.

    Returns:
        The config.

    Raises:
        UserError: this version cannot read it.
        DataError: there is no such task.
        MixerError: there is no such mixer.
    """
    try:
        data = tasks.get(content["task"]).Options.model_validate(content["data"])
        options = (candidate or parse(content["mixer"])).Options.model_validate(content["mixer_options"])
        return RunConfig.model_validate({**content, "data": data, "mixer_options": options})
    except (KeyError, TypeError, RecursionError, ValidationError) as error:
        reason = (
            error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else str(error)
        )
        raise UserError(
            f"this config was written by another version, or a file that it names has changed: {reason}"
        ) from None


def _require_recorded_code(kind: str, name: str, recorded: object) -> None:
    """Announces the code that a config names, and raises UserError unless it is the recorded one. Executes nothing."""
    own = registered(name) if kind == "mixer" else tasks.built_in(name)
    if own is not None:
        return
    if ".py:" in name and not Path(name.rpartition(":")[0]).is_file():
        raise UserError(f"the {kind} file of this run, {name.rpartition(':')[0]!r}, does not exist (any more)")
    found = mixers.origin(name) if kind == "mixer" else tasks.origin(name)
    if recorded in OWN_ORIGINS or not isinstance(recorded, str):
        raise UserError(
            f"the config of this run names the {kind} {name!r}, which does not ship with the suite, but records "
            f"{recorded!r} as its origin: it is not executed"
        )
    if found != recorded:
        raise UserError(
            f"the {kind} {name!r} of this run has changed: {recorded} was recorded, {found} is here; it is not "
            "executed (start a new run with it)"
        )
    say(f"this run executes the {kind} {name} ({found}, as recorded)")
