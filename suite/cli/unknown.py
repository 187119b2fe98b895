"""What to say where a command has no such option: which one was probably meant."""

from __future__ import annotations

from typing import Any

from suite.errors import nearest

#: Options that others have under a name of their own, and what stands for them here.
ELSEWHERE = {
    "gpu": "--device cuda",
    "cuda": "--device cuda",
    "cpu": "--device cpu",
    "seeds": "suite sweep --seeds",
    "lrs": "suite sweep --lrs",
    "config": "--recipe",
    "num_workers": "--workers",
    "name": "--mixer",
    "output_dir": "the environment variable SUITE_HOME",
}


def unknown_option(error: Any) -> str:
    """The message for an option that a command does not have.

    Args:
        error: click's `NoSuchOption`, with its context.

    Returns:
        One line.
    """
    given, command = error.option_name, error.ctx.command
    options = {text.lstrip("-"): text for part in command.params for text in (*part.opts, *part.secondary_opts)}
    near = _instead(given.lstrip("-"), options)
    hint = f"; did you mean {near}?" if near else ""
    return f"{error.ctx.command_path} has no option {given!r}{hint} ({error.ctx.command_path} -h lists them)"


def _instead(name: str, options: dict[str, str]) -> str:
    """What stands for an option: an option, a `--set` value, or another command."""
    key = name.casefold().replace("-", "_")
    exact = {text.replace("-", "_"): option for text, option in options.items()}
    if key in exact:
        return exact[key]
    if key in ELSEWHERE:
        return ELSEWHERE[key]
    settable = _settable() if "set" in options else ()
    if key in settable:
        return f"--set {key}=VALUE"
    if near := nearest(key, exact):
        return exact[near]
    near = nearest(key, settable)
    return f"--set {near}=VALUE" if near else ""


def _settable() -> tuple[str, ...]:
    """The options of model and training; those of data and mixer depend on the task and the mixer."""
    from suite.config.run_config import ModelConfig, TrainConfig

    return (*TrainConfig.model_fields, *ModelConfig.model_fields)
