"""From a command line to a RunConfig: the shipped recipe, overridden by a recipe file, by the command line's own
options, and by `--set`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import tasks
from suite.config.hybrids import resolve_hybrid
from suite.config.options import Models, apply_sets, located, validated
from suite.config.recipe import SECTIONS, Sections, read_recipe, shipped_recipe
from suite.config.run_config import ModelConfig, RunConfig, TrainConfig
from suite.console import say
from suite.errors import UserError
from suite.models.candidate import Candidate, parse, registered
from suite.models.effects import HYBRID, refuse_idle
from suite.models.resolve_defaults import usual_heads
from suite.safe_text import quoted
from tasks.base import Task, TaskOptions


class Request(TypedDict, total=False):
    """What a command line names. `None`, like a missing key, leaves the choice to the recipe."""

    task: str | None
    mixer: str | None
    scale: str | None
    seed: int | None
    steps: int | None
    horizon: int | None  # of forecasting tasks, like `track`
    track: str | None
    hybrid: str | None  # a layout's name, or layers such as "2,4"
    sets: Sequence[str]  # `key=value`
    recipe: Path | None  # a user's recipe file
    unmatched: bool
    skip_variant_layers: bool


@dataclass(frozen=True)
class Resolved:
    """A run's config and the candidate that its mixer names, so that no command looks it up again."""

    config: RunConfig
    candidate: Candidate


def resolve(**request: Unpack[Request]) -> RunConfig:
    """The RunConfig of a command line; see `resolve_run`.

    Returns:
        The config alone.
    """
    return resolve_run(**request).config


def resolve_run(**request: Unpack[Request]) -> Resolved:
    """The RunConfig of a command line, and its candidate. The keywords are those of `Request`.

    Returns:
        The config, its mixer's widths left as the user gave them (`Candidate.plan` solves the others), and the
        candidate.

    Raises:
        UserError: a value is missing, unknown, invalid, or does not fit the others; one line for the user.
        DataError: there is no such task.
        MixerError: there is no such mixer or baseline.
    """
    recipe = request.get("recipe")
    given = read_recipe(recipe) if recipe else {}
    task = request.get("task") or given.get("task")
    mixer = request.get("mixer") or given.get("mixer", {}).get("name")
    if not task:
        raise UserError("no task given: --task NAME (suite list tasks)")
    if not mixer:
        raise UserError("no mixer given: --mixer NAME (suite list mixers)")
    _announce_files_of_recipe(request, given)
    task_class, candidate = tasks.get(task), parse(mixer)
    scale = request.get("scale") or given.get("scale", "quick")
    sections = _sections(request, given, task, scale, task_class, candidate)
    hybrid = request.get("hybrid") or given.get("hybrid")
    config = _assemble(task, scale, _seed(request.get("seed"), given), hybrid, task_class, candidate, sections)
    if request.get("skip_variant_layers") and not config.hybrid:
        raise UserError(
            "--skip-variant-layers needs a hybrid, whose softmax layers remain when the others are skipped (example: "
            "--hybrid even)"
        )
    named = _named(request, given, task_class, candidate)
    refuse_idle(config, candidate, task_class(config.data), named | ({HYBRID} if hybrid else set()))
    switches = {name: bool(request.get(name)) for name in ("unmatched", "skip_variant_layers")}
    return Resolved(config.model_copy(update=switches), candidate)


def shipped_config(task: str, scale: str) -> RunConfig:
    """The shipped recipe of a built-in task with the softmax mixer. Imports nothing that does not ship with the suite,
    whatever installed packages claim: readers of records use it.

    Args:
        task: the name of a built-in task.
        scale: the scale.

    Returns:
        The config.

    Raises:
        UserError: the task has no recipe at that scale.
        ValueError: there is no built-in task of that name.
    """
    task_class, candidate = tasks.built_in(task), registered("softmax")
    if task_class is None or candidate is None:
        raise ValueError(f"task {task!r} does not ship with the suite")
    sections = _sections({}, {}, task, scale, task_class, candidate)
    return _assemble(task, scale, 0, None, task_class, candidate, sections)


def resolve_data(task: str, scale: str | None, sets: Sequence[str]) -> TaskOptions:
    """A task's data options.

    Args:
        task: the task's name.
        scale: the scale of its shipped recipe; None: the task's own defaults.
        sets: `key=value` texts.

    Returns:
        The options.

    Raises:
        UserError: the scale, an option or a value is invalid.
        DataError: there is no such task.
    """
    options = tasks.get(task).Options
    sections = {"data": dict(shipped_recipe(task, scale)["data"]) if scale else {}}
    apply_sets(sections, sets, {"data": options})
    return validated("data", options, sections["data"])


def _announce_files_of_recipe(request: Request, given: Mapping[str, Any]) -> None:
    """Names on stderr the code that a recipe file, not the command line, makes this command execute."""
    for kind, name in (("task", given.get("task")), ("mixer", given.get("mixer", {}).get("name"))):
        if isinstance(name, str) and ".py:" in name and not request.get(kind):
            say(f"the recipe {request.get('recipe')} names the {kind} {name}: this command executes that file")


def _sections(
    request: Request, given: Mapping[str, Any], task: str, scale: str, task_class: type[Task], candidate: Candidate
) -> Sections:
    """The options by section, from all sources; not validated yet."""
    models = _models(task_class, candidate)
    sections = shipped_recipe(task, scale, candidate.name)
    for name in SECTIONS:
        sections[name].update({k: v for k, v in given.get(name, {}).items() if (name, k) != ("mixer", "name")})
    for option, section, field, value in (
        ("--steps", "train", "steps", request.get("steps")),
        ("--horizon", "data", "horizon", request.get("horizon")),
        ("--track", "data", "track", request.get("track")),
    ):
        if value is not None:
            if field not in models[section].model_fields:
                raise UserError(f"{option} is an option of forecasting tasks; {task!r} has none")
            sections[section][field] = value
    apply_sets(sections, request.get("sets", ()), models)
    return sections


def _models(task_class: type[Task], candidate: Candidate) -> Models:
    return {"data": task_class.Options, "model": ModelConfig, "mixer": candidate.Options, "train": TrainConfig}


def _named(request: Request, given: Mapping[str, Any], task_class: type[Task], candidate: Candidate) -> set[str]:
    """The options that the user gave in a recipe file or with `--set`, as `section.name`."""
    found = {f"{section}.{name}" for section in SECTIONS for name in given.get(section, {})}
    keys = [text.partition("=")[0].strip() for text in request.get("sets", ())]
    return found | {".".join(located(key, _models(task_class, candidate))) for key in keys}


def _seed(seed: int | None, given: Mapping[str, Any]) -> int:
    value = seed if seed is not None else given.get("seed", 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise UserError(
            f"seed: an integer from 0 to 2147483647 is allowed, {quoted(value)} was given (suite sweep takes several: "
            "--seeds 0-7)"
        )
    return value


def _assemble(
    task: str,
    scale: str,
    seed: int,
    hybrid: str | None,
    task_class: type[Task],
    candidate: Candidate,
    sections: Sections,
) -> RunConfig:
    data = validated("data", task_class.Options, sections["data"])
    model = validated("model", ModelConfig, sections["model"])
    subject = task_class(data)
    usual = {"causal": subject.spec.causal, **usual_heads(candidate.Options, model)}
    options = validated("mixer", candidate.Options, {**usual, **sections["mixer"]})
    if reason := candidate.unsuitable(task, subject, options):
        raise UserError(reason)
    if hybrid and not candidate.hybrids:
        raise UserError(f"{candidate.name} has no mixer layers, so it cannot be a hybrid; drop --hybrid")
    return RunConfig(
        task=task,
        task_origin=tasks.origin(task),
        scale=scale,
        seed=seed,
        mixer=candidate.name,
        mixer_origin=candidate.origin,
        data=data,
        mixer_options=options,
        hybrid=resolve_hybrid(hybrid, model.depth) if hybrid else (),
        model=model,
        train=validated("train", TrainConfig, sections["train"]),
    )
