"""A mixer as a candidate: sized to the budget, certified, built into the backbone of the task's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from backbones.mixers.base import Mixer, MixerConfig
from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.models import budget
from suite.models.budget import Plan
from suite.models.certificate import Certificate
from suite.models.inputs import Backbone, adapter
from tasks.base import InputSpec, Task

EXAMPLE_SEED = 0  # the constant training example is the same for every run of a task


@dataclass(frozen=True)
class MixerCandidate:
    """A mixer under its name; see `Candidate` for the methods."""

    name: str
    mixer: type[Mixer]
    origin: str
    ranked = True
    hybrids = True
    idle_training: ClassVar[Mapping[str, str]] = {}

    @property
    def Options(self) -> type[MixerConfig]:
        return self.mixer.Config

    @property
    def version(self) -> int:
        return self.mixer.version

    @property
    def board_options(self) -> tuple[str, ...]:
        return self.mixer.board_options

    @property
    def board_note(self) -> str:
        return self.mixer.board_note

    def obstacle(self, device: torch.device) -> str:
        reason = self.mixer.obstacle(device)
        return f"mixer {self.name!r} cannot run here: {reason}" if reason else ""

    def unsuitable(self, task_name: str, task: Task, options: MixerConfig) -> str:
        causal, able = task.spec.causal, self.mixer.capabilities
        if not (able.causal if causal else able.bidirectional):
            needed, has = ("a causal", "bidirectional") if causal else ("a bidirectional", "causal")
            return f"task {task_name!r} needs {needed} mixer; {self.name!r} is {has} only (suite list mixers)"
        if options.causal != causal:
            return (
                f"mixer.causal: task {task_name!r} decides it ({str(causal).lower()}), "
                f"{str(options.causal).lower()} was given"
            )
        return ""

    def idle_options(self, options: MixerConfig) -> Mapping[str, str]:
        return self.mixer.idle_options(options)

    def plan(self, config: RunConfig, spec: InputSpec) -> Plan:
        return budget.solve(self.mixer, config, spec)

    def certify(self, config: RunConfig, spec: InputSpec, plan: Plan) -> Certificate:
        return budget.certify(self.mixer, config, spec, plan)

    def check(self, config: RunConfig, spec: InputSpec) -> tuple[Plan, Certificate]:
        plan = self.plan(config, spec)
        certificate = self.certify(config, spec, plan)
        if certificate.matched or config.unmatched:
            return plan, certificate
        fit = self.nearest_fit(config, spec)
        advice = f"; nearest fit: {fit}" if fit else "; nothing fits at this shape"
        reasons = "; ".join(certificate.reasons)
        raise UserError(f"budget: {self.name} is not matched: {reasons}{advice} (or pass --unmatched: it never ranks)")

    def nearest_fit(self, config: RunConfig, spec: InputSpec) -> str:
        free = budget.with_free_widths(config)
        plan = self.plan(free, spec)
        if not self.certify(free, spec, plan).matched:
            return ""
        return ", ".join(f"mixer.{name}={getattr(plan.mixer_options, name)}" for name in budget.widths_of(config))

    def build(self, config: RunConfig, task: Task, plan: Plan) -> Backbone:
        model = adapter(task.spec).backbone(plan.shape, plan.layers)
        model.reset_parameters()
        if model.trunk.takes_constant_row:
            self._set_constant(model, config, task)
        return model

    def _set_constant(self, model: Backbone, config: RunConfig, task: Task) -> None:
        """Sets the sequence that all examples share: random, from the run's seed alone, or one fixed training
        example.
        """
        source, inputs = getattr(self.mixer, "constant", None), adapter(task.spec)
        if source == "random":
            constant = inputs.random_constant(torch.Generator().manual_seed(config.seed))
        elif source == "example":
            constant = inputs.constant_from(next(task.train_batches(EXAMPLE_SEED, 1)).inputs[0])
        else:
            raise UserError(
                f"mixer {self.name!r} needs a constant row; its class attribute `constant` must be 'random' or "
                "'example'"
            )
        model.set_constant(constant)
