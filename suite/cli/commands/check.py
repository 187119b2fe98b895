"""`suite check`: the mixer contract and the task contract."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A mixer or a task, or path/to/file.py:Class.")],
    data_dir: opt.DataDir = None,
    set_: opt.DataSet = None,
    slow: Annotated[
        bool,
        typer.Option(
            "--slow", help="Include the slow checks (gradcheck, torch.compile, torch.export; large splits, workers)."
        ),
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Runs the contract of a mixer or a task, registered or in your own file, and lists each check's result. Exit code
    1 if a check fails.

    `suite check examples/moving_average.py:MovingAverage`
    """
    if is_task(name):
        contract, results = check_task(name, data_dir, set_ or [], slow)
    else:
        contract, results = check_mixer(
            name, slow, given=[*(["--data-dir"] if data_dir else []), *(["--set"] if set_ else [])]
        )
    if as_json:
        print_json(contract.as_json(name, results))
    else:
        out.print(contract.render(name, results))
    raise typer.Exit(1 if any(result.status == "failed" for result in results) else 0)


def is_task(name: str) -> bool:
    """Whether a task is meant. Raises UserError for a name that is neither a task nor a mixer, MixerError for a mixer's
    file that cannot be used.
    """
    import tasks
    from backbones.mixers import registry
    from backbones.mixers.errors import MixerError, class_missing, did_you_mean
    from suite.errors import UserError

    if ".py:" not in name:
        if name in registry.names() or name in tasks.names():
            return name not in registry.names()
        if name.endswith(".py"):
            raise UserError(class_missing("mixer or task", name))
        near = did_you_mean(name, (*registry.names(), *tasks.names()))
        raise UserError(f"unknown mixer or task {name!r}{near} (suite list mixers; suite list tasks)")
    file = Path(name.rpartition(":")[0])
    if not file.is_file():
        raise UserError(f"file {str(file)!r} does not exist (expected: path/to/file.py:Class)")
    try:
        registry.get(name)
    except MixerError:
        if re.search(r"^\s*(from|import) tasks\b", file.read_text("utf-8", "ignore"), re.MULTILINE):
            return True
        raise
    return False


def check_mixer(name: str, slow: bool, given: Sequence[str]) -> tuple[Any, Sequence[Any]]:
    """The mixer contract's module, and its results. `given`: options of tasks, which are refused."""
    from backbones.contract import run as contract
    from suite.errors import UserError

    if given:
        raise UserError(f"{given[0]} is an option of tasks; {name!r} is a mixer")
    results = contract.run_checks(name, slow=slow)
    keep_outcome(name, held=all(result.status != "failed" for result in results), whole=slow)
    return contract, results


def keep_outcome(mixer: str, *, held: bool, whole: bool) -> None:
    """Keeps the contract's outcome for the records of the later runs of a mixer in a file."""
    from backbones.contract.run import VERSION
    from backbones.mixers import registry
    from suite.records import contracts
    from suite.records.schema import Contract

    contracts.keep(mixer, registry.origin(mixer), Contract(checked=held, version=VERSION), whole=whole)


def check_task(name: str, data_dir: Path | None, sets: Sequence[str], slow: bool) -> tuple[Any, Sequence[Any]]:
    """The task contract's module, and its results."""
    import tasks
    from suite.console import say
    from suite.models.effects import refuse_unread_folder
    from suite.models.resolve import resolve_data
    from tasks.contract import run as contract

    refuse_unread_folder(name, data_dir)
    options = resolve_data(name, None, sets)
    say(tasks.get(name)(options, data_dir).prepare_note())
    return contract, contract.run_checks(name, data_dir, options, slow=slow)
