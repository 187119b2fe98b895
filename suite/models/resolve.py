"""From what a user types to a RunConfig: shipped recipe, then recipe file, then the command line's own options, then
`--set`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import tasks
from backbones.mixers import registry
from backbones.mixers.base import MixerConfig
from suite.config.hybrids import resolve_hybrid
from suite.config.recipe import SECTIONS, Sections, read_recipe, shipped_recipe
from suite.config.run_config import ModelConfig, RunConfig, TrainConfig
from suite.errors import UserError, did_you_mean
from suite.models import baselines
from tasks.base import Task, TaskOptions


def _models(task_class: type[Task], mixer: str) -> dict[str, type[BaseModel]]:
    return {"data": task_class.Options, "model": ModelConfig, "mixer": _options_of(mixer), "train": TrainConfig}


def _options_of(mixer: str) -> type[MixerConfig]:
    """The options' class of a mixer or a baseline."""
    return baselines.get(mixer).options if baselines.is_baseline(mixer) else registry.get(mixer).Config


def _locate(key: str, models: Mapping[str, type[BaseModel]]) -> tuple[str, str]:
    """The (section, field) of a `--set` key; the section may be left out where the field's name is unique."""
    section, _, field = key.rpartition(".")
    homes = [s for s, model in models.items() if field in model.model_fields and section in ("", s)]
    if len(homes) == 1:
        return homes[0], field
    if homes:
        raise UserError(f"--set {key}: {' and '.join(f'{s}.{field}' for s in homes)} both exist; name one of them")
    every = [f"{s}.{f}" for s, model in models.items() for f in model.model_fields]
    near = did_you_mean(field, [name.partition(".")[2] for name in every])
    if section and section not in models:
        near = did_you_mean(section, models)
    raise UserError(f"unknown option {key!r}{near} (suite show --task T --mixer M lists them all)")


def _parse_set(text: str, models: Mapping[str, type[BaseModel]]) -> tuple[str, str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set takes key=value, {text!r} was given; for example --set lr=3e-3")
    return *_locate(key.strip(), models), value.strip()


def _validated(section: str, model: type[BaseModel], values: Mapping[str, Any]) -> Any:
    for name in values:
        if name not in model.model_fields:
            near = did_you_mean(name, model.model_fields)
            raise UserError(f"unknown option '{section}.{name}'{near} (allowed: {', '.join(model.model_fields)})")
    cleaned = {k: None if isinstance(v, str) and v.lower() in ("none", "null") else v for k, v in values.items()}
    try:
        made = model.model_validate(cleaned)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([section, *(str(part) for part in first["loc"])])
        given = "" if not first["loc"] else f", {first['input']!r} was given"
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}{given}") from None
    for name, value in made:
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{section}.{name}: a finite number is allowed, {value} was given")
    return made


def resolve(
    *,
    task: str | None = None,
    mixer: str | None = None,
    scale: str | None = None,
    seed: int | None = None,
    steps: int | None = None,
    horizon: int | None = None,
    track: str | None = None,
    hybrid: str | None = None,
    sets: Sequence[str] = (),
    recipe: Path | None = None,
    unmatched: bool = False,
    skip_variant_layers: bool = False,
) -> RunConfig:
    """The RunConfig of a command line. Raises UserError, DataError or MixerError with one line for the user.

    The mixer's widths are left as the user gave them; `budget.solve` fills in the rest.
    """
    given = read_recipe(recipe) if recipe else {}
    task = task or given.get("task")
    mixer = mixer or given.get("mixer", {}).get("name")
    if not task:
        raise UserError("no task given: --task NAME (suite list tasks)")
    if not mixer:
        raise UserError("no mixer given: --mixer NAME (suite list mixers)")
    task_class = tasks.get(task)
    models = _models(task_class, mixer)
    scale = scale or given.get("scale", "quick")
    sections = shipped_recipe(task, scale, mixer)
    for name in SECTIONS:
        sections[name].update({k: v for k, v in given.get(name, {}).items() if (name, k) != ("mixer", "name")})
    for option, section, field, value in (
        ("--steps", "train", "steps", steps),
        ("--horizon", "data", "horizon", horizon),
        ("--track", "data", "track", track),
    ):
        if value is not None:
            if field not in models[section].model_fields:
                raise UserError(f"{option} is an option of forecasting tasks; {task!r} has none")
            sections[section][field] = value
    for section, field, value in (_parse_set(text, models) for text in sets):
        sections[section][field] = value
    config = _assemble(
        task, mixer, scale, _seed(seed, given), hybrid or given.get("hybrid"), task_class, models, sections
    )
    if skip_variant_layers and not config.hybrid:
        raise UserError(
            "--skip-variant-layers needs a hybrid: without softmax layers none would be left (for example "
            "--hybrid even)"
        )
    return config.model_copy(update={"unmatched": unmatched, "skip_variant_layers": skip_variant_layers})


def resolve_data(task: str, scale: str | None, sets: Sequence[str]) -> TaskOptions:
    """A task's data options at a scale; without one, its own defaults. Raises UserError or DataError."""
    model = tasks.get(task).Options
    values = dict(shipped_recipe(task, scale)["data"]) if scale else {}
    for _, field, value in (_parse_set(text, {"data": model}) for text in sets):
        values[field] = value
    made: TaskOptions = _validated("data", model, values)
    return made


def _seed(seed: int | None, given: Mapping[str, Any]) -> int:
    value = seed if seed is not None else given.get("seed", 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise UserError(f"seed: a whole number from 0 to 2147483647 is allowed, {value!r} was given")
    return value


def _assemble(
    task: str,
    mixer: str,
    scale: str,
    seed: int,
    hybrid: str | None,
    task_class: type[Task],
    models: Mapping[str, type[BaseModel]],
    sections: Sections,
) -> RunConfig:
    data = _validated("data", models["data"], sections["data"])
    model = _validated("model", ModelConfig, sections["model"])
    causal = task_class(data).spec.causal
    options = _validated(
        "mixer", models["mixer"], {"causal": causal, **_heads(models["mixer"], model), **sections["mixer"]}
    )
    if baselines.is_baseline(mixer):
        return _with_baseline(
            task_class,
            mixer,
            hybrid,
            RunConfig(
                task=task,
                scale=scale,
                seed=seed,
                mixer=mixer,
                mixer_origin=baselines.ORIGIN,
                data=data,
                mixer_options=options,
                model=model,
                train=_validated("train", TrainConfig, sections["train"]),
            ),
        )
    able = registry.get(mixer).capabilities
    if not (able.causal if causal else able.bidirectional):
        needed, has = ("a causal", "bidirectional") if causal else ("a bidirectional", "causal")
        raise UserError(f"task {task!r} needs {needed} mixer; {mixer!r} is {has} only (suite list mixers)")
    if options.causal != causal:
        raise UserError(
            f"mixer.causal: task {task!r} decides it ({str(causal).lower()}), {str(options.causal).lower()} was given"
        )
    train = _validated("train", TrainConfig, sections["train"])
    return RunConfig(
        task=task,
        scale=scale,
        seed=seed,
        mixer=mixer,
        mixer_origin=registry.origin(mixer),
        data=data,
        mixer_options=options,
        hybrid=resolve_hybrid(hybrid, model.depth) if hybrid else (),
        model=model,
        train=train,
    )


def _with_baseline(task_class: type[Task], name: str, hybrid: str | None, config: RunConfig) -> RunConfig:
    """The config of a baseline's run. Raises UserError where the baseline is not for the task's domain, or has no
    layers to keep.
    """
    domain = baselines.get(name).domain
    if task_class.domain != domain:
        raise UserError(
            f"{name} is for {domain} tasks; {config.task!r} is a {task_class.domain} task (suite list tasks)"
        )
    if hybrid:
        raise UserError(f"{name} has no layers to keep softmax in; drop --hybrid")
    return config


def default_options(config: RunConfig) -> MixerConfig:
    """The mixer's options as they are when the user gives none, widths left to the solver."""
    options = registry.get(config.mixer).Config
    return options(causal=config.mixer_options.causal, **_heads(options, config.model))


def _heads(mixer_config: type[BaseModel], model: ModelConfig) -> dict[str, int]:
    """The reference's heads, unless the mixer's paper has a number of its own (HyperMLP: 2)."""
    own = mixer_config.model_fields["heads"].default != MixerConfig.model_fields["heads"].default
    return {} if own else {"heads": model.heads}


def from_canonical(content: Mapping[str, Any]) -> RunConfig:
    """The RunConfig that `RunConfig.canonical` wrote. Raises UserError when this version does not know it."""
    try:
        data = tasks.get(content["task"]).Options.model_validate(content["data"])
        options = _options_of(content["mixer"]).model_validate(content["mixer_options"])
        return RunConfig.model_validate({**content, "data": data, "mixer_options": options})
    except (KeyError, ValidationError) as error:
        reason = (
            error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else str(error)
        )
        raise UserError(f"this config was written by another version, or a file of it has changed: {reason}") from None
