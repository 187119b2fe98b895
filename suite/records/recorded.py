"""Configs and certificates read from plain values, without importing foreign code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationInfo, field_validator, model_validator

import tasks
from backbones.mixers.config import MixerConfig
from suite.config.identity import introduced_values
from suite.config.run_config import OWN_ORIGINS, RunConfig
from suite.models.candidate import registered
from suite.models.certificate import Certificate
from tasks.base import TaskOptions


class UnloadedTaskOptions(TaskOptions):
    """Options of a third party's task, as recorded. Their class is not imported to read a record."""

    model_config = ConfigDict(extra="allow")


class UnloadedMixerOptions(MixerConfig):
    """Options of a third party's mixer, as recorded. Their class is not imported to read a record."""

    model_config = ConfigDict(extra="allow")


class RecordedConfig(RunConfig):
    """A RunConfig read from plain values. What ships with the suite gets its options' class, others stay as recorded.
    An option that did not exist when the record was written gets the value it was introduced with.
    """

    @model_validator(mode="before")
    @classmethod
    def _top(cls, value: object) -> object:
        return _filled(value, cls)

    @field_validator("data", mode="before")
    @classmethod
    def _data(cls, value: object, info: ValidationInfo) -> object:
        name, options = info.data.get("task", ""), UnloadedTaskOptions
        if info.data.get("task_origin") not in OWN_ORIGINS:
            return options.model_validate(value)
        if isinstance(value, Mapping) and any(map(_is_path, value.values())):
            raise ValueError("a path of another machine")  # which the options of a task might open
        task = tasks.built_in(name)
        if task is None:
            raise ValueError(f"task {name!r} is unknown to this version")
        return task.Options.model_validate(_filled(value, task.Options))

    @field_validator("mixer_options", mode="before")
    @classmethod
    def _mixer_options(cls, value: object, info: ValidationInfo) -> object:
        name, options = info.data.get("mixer", ""), UnloadedMixerOptions
        if info.data.get("mixer_origin") not in OWN_ORIGINS:
            return options.model_validate(value)
        candidate = registered(name)
        if candidate is None:
            raise ValueError(f"mixer {name!r} is unknown to this version")
        return candidate.Options.model_validate(_filled(value, candidate.Options))

    @field_validator("model", "train", mode="before")
    @classmethod
    def _section(cls, value: object, info: ValidationInfo) -> object:
        model = cls.model_fields[str(info.field_name)].annotation
        assert isinstance(model, type)
        return _filled(value, model)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and (PurePath(value).is_absolute() or ".." in PurePath(value).parts)


def _filled(value: object, model: type[BaseModel]) -> object:
    return {**introduced_values(model), **value} if isinstance(value, Mapping) else value


class RecordedCertificate(Certificate):
    """A certificate read from plain values."""

    model_config = ConfigDict(allow_inf_nan=False)

    mixer_options: SerializeAsAny[UnloadedMixerOptions]
