"""A candidate: what `--mixer` names, a mixer or a baseline, with everything a command needs of it.

A command looks it up once (`parse`) and passes it along. Readers of records use `registered`, which imports no foreign
code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

from backbones.baselines import registry as baselines
from backbones.baselines.base import PREFIX
from backbones.mixers import registry as mixers
from backbones.mixers.base import MixerConfig
from suite.config.run_config import RunConfig
from suite.models.baseline_candidate import BaselineCandidate
from suite.models.budget import Plan
from suite.models.certificate import Certificate
from suite.models.mixer_candidate import MixerCandidate
from tasks.base import InputSpec, Task


class Candidate(Protocol):
    """A mixer or a baseline.

    name: as the user gave it.
    Options: the class of its options.
    version: raised when its computation changes: runs of different versions are different rows of a board.
    origin: "built-in", "baseline", a distribution with its version, or a file with the hash of its content.
    ranked: whether its runs can have a rank; a baseline's never do.
    hybrids: whether some of its layers can be softmax ones.
    board_options: options that a board shows even when the solver chose them.
    board_note: what a board adds to each of its rows.
    idle_training: options of training that may be tuned, but change nothing for it, and why.
    """

    @property
    def name(self) -> str: ...
    @property
    def Options(self) -> type[MixerConfig]: ...
    @property
    def version(self) -> int: ...
    @property
    def origin(self) -> str: ...
    @property
    def ranked(self) -> bool: ...
    @property
    def hybrids(self) -> bool: ...
    @property
    def board_options(self) -> tuple[str, ...]: ...
    @property
    def board_note(self) -> str: ...
    @property
    def idle_training(self) -> Mapping[str, str]: ...

    def obstacle(self, device: torch.device) -> str:
        """Why it cannot run on a device.

        Args:
            device: where the run would compute.

        Returns:
            One line, empty where it can run.
        """

    def unsuitable(self, task_name: str, task: Task, options: MixerConfig) -> str:
        """Why it cannot be used for a task.

        Args:
            task_name: the task as the user named it.
            task: the task; its data are not needed.
            options: the candidate's options.

        Returns:
            One line, empty where it can be used.
        """

    def idle_options(self, options: MixerConfig) -> Mapping[str, str]:
        """Its options that change nothing, given the others.

        Args:
            options: all of them.

        Returns:
            By name, why: a phrase.
        """

    def plan(self, config: RunConfig, spec: InputSpec) -> Plan:
        """The layers of its model, widths solved for the budget, and of the softmax reference. Reads no data.

        Args:
            config: the run.
            spec: the task's inputs and outputs.

        Returns:
            The plan; a baseline has no layers.

        Raises:
            UserError: it has no size at this shape.
        """

    def certify(self, config: RunConfig, spec: InputSpec, plan: Plan) -> Certificate:
        """Counts its model and the reference on the meta device.

        Args:
            config: the run.
            spec: the task's inputs and outputs.
            plan: from `plan`.

        Returns:
            The certificate, matched or not.
        """

    def check(self, config: RunConfig, spec: InputSpec) -> tuple[Plan, Certificate]:
        """Plans and certifies.

        Args:
            config: the run.
            spec: the task's inputs and outputs.

        Returns:
            The plan and its certificate.

        Raises:
            UserError: a mixer is not matched and the run is not declared unmatched; the message gives both counts and
                the nearest fit.
        """

    def nearest_fit(self, config: RunConfig, spec: InputSpec) -> str:
        """The widths that the solver itself chooses, for the message of a refusal.

        Args:
            config: the run.
            spec: the task's inputs and outputs.

        Returns:
            `mixer.NAME=VALUE, …`, or an empty string where they are not matched either.
        """

    def build(self, config: RunConfig, task: Task, plan: Plan) -> nn.Module:
        """The model on PyTorch's current default device.

        Args:
            config: the run.
            task: its task, loaded.
            plan: from `plan`.

        Returns:
            The model, its parameters drawn from PyTorch's global generator and its constant sequence set.
        """


def parse(name: str) -> Candidate:
    """The candidate of a name. Imports the file or the package that it names.

    Args:
        name: a registered mixer, `baseline/NAME`, or `path/to/file.py:Class`.

    Returns:
        The candidate.

    Raises:
        MixerError: there is no such mixer, or it cannot be loaded; names the nearest one.
        BaselineError: there is no such baseline; names the nearest one.
    """
    if name.startswith(PREFIX) and ".py:" not in name:
        return BaselineCandidate(name, baselines.get(name))
    if name not in mixers.names() and baselines.find(PREFIX + name.casefold()):
        baselines.get(name)  # raises with the name that has the prefix
    return MixerCandidate(name, mixers.get(name), mixers.origin(name))


def registered(name: str) -> Candidate | None:
    """The candidate that ships with the suite under a name. Imports neither a user's file nor an entry point.

    Args:
        name: any text, for example the mixer of a record.

    Returns:
        The candidate, or None where the suite has none of that name.
    """
    baseline, mixer = baselines.find(name), mixers.built_in(name)
    if baseline is not None:
        return BaselineCandidate(name, baseline)
    return MixerCandidate(name, mixer, mixers.origin(name)) if mixer is not None else None
