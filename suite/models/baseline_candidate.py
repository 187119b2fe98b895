"""A baseline as a candidate: counted next to the softmax reference, but not sized to it, and never ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from backbones.baselines.base import Baseline, BaselineOptions
from backbones.baselines.cost import flops_of, parameters_of
from backbones.mixers.base import MixerConfig
from suite.config.run_config import TUNED, RunConfig
from suite.models.budget import Plan, reference_layers
from suite.models.certificate import Certificate, Counts, certificate, count
from suite.models.meta_device import meta_device
from tasks.base import InputSpec, SeriesInput, Task

ORIGIN = "baseline"
REASON = "a baseline: another kind of model, shown on the board without a rank"


@dataclass(frozen=True)
class BaselineCandidate:
    """A baseline under its name; see `Candidate` for the methods."""

    name: str
    baseline: Baseline[Any]
    origin = ORIGIN
    ranked = False
    hybrids = False
    board_options: tuple[str, ...] = ()
    board_note: str = ""

    @property
    def Options(self) -> type[BaselineOptions]:
        return self.baseline.Options

    @property
    def version(self) -> int:
        return self.baseline.version

    def obstacle(self, device: torch.device) -> str:
        return ""

    def unsuitable(self, task_name: str, task: Task, options: MixerConfig) -> str:
        domain = self.baseline.domain
        if task.domain != domain:
            return f"{self.name} is for {domain} tasks; {task_name!r} is a {task.domain} task (suite list tasks)"
        return ""

    @property
    def idle_training(self) -> Mapping[str, str]:
        return dict.fromkeys(TUNED, "it is fitted in closed form, without steps") if self.baseline.closed_form else {}

    def idle_options(self, options: MixerConfig) -> Mapping[str, str]:
        return {"heads": "a baseline has no heads of its own (model.heads is the reference's)"}

    def plan(self, config: RunConfig, spec: InputSpec) -> Plan:
        reference = reference_layers(config.model, spec.causal)
        return Plan(shape=config.model, layers=(), reference=reference, mixer_options=config.mixer_options)

    def certify(self, config: RunConfig, spec: InputSpec, plan: Plan) -> Certificate:
        return certificate(
            config,
            spec,
            self._count(config, spec),
            count(spec, config.model, plan.reference),
            reasons=(REASON,),
            pays_in_ffn=False,
            mixer_options=config.mixer_options,
            flops_verified=True,
        )

    def check(self, config: RunConfig, spec: InputSpec) -> tuple[Plan, Certificate]:
        plan = self.plan(config, spec)
        return plan, self.certify(config, spec, plan)

    def nearest_fit(self, config: RunConfig, spec: InputSpec) -> str:
        return ""

    def build(self, config: RunConfig, task: Task, plan: Plan) -> nn.Module:
        return self._model(config, task.spec)

    def _count(self, config: RunConfig, spec: InputSpec) -> Counts:
        assert isinstance(spec, SeriesInput)
        with meta_device():
            model = self._model(config, spec)
        with torch.device("meta"):
            parameters, flops = parameters_of(model), flops_of(model, spec)
        return Counts(
            parameters=parameters,
            mixer_parameters=0,
            total_parameters=parameters,
            flops=flops,
            state_bytes=0,
            length=spec.look_back,
            depth=0,
            ffn_width=0,
        )

    def _model(self, config: RunConfig, spec: InputSpec) -> nn.Module:
        assert isinstance(spec, SeriesInput)
        return self.baseline.build(spec, config.mixer_options, config.model)
