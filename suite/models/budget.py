"""The budget: size a mixer for a task, certify the model that comes of it, or refuse with both counts.

The reference is the softmax backbone of the same shape. A run is matched when its parameters without embeddings and
head are within 1 % of the reference's and every mixer layer is within 5 % of the reference's mixer layer. A control
that pays in the FFN is matched on the total only.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, SerializeAsAny

from backbones.base import Block, Layer
from backbones.mixers import registry
from backbones.mixers.base import Mixer, MixerConfig
from suite.config.run_config import ModelConfig, RunConfig
from suite.errors import UserError
from suite.models import baselines
from suite.models.build import (
    Backbone,
    all_parameters,
    budget_parameters,
    flops_positions,
    on_meta,
    outside_flops,
    sequence_length,
)
from tasks.base import InputSpec, SeriesInput

TOTAL_TOLERANCE = 0.01
LAYER_TOLERANCE = 0.05
FFN_TOLERANCE = 0.05  # how far the feed-forward width may move to take up what the mixer leaves
REFERENCE = "softmax"


class Certificate(BaseModel):
    """What a model costs beside its softmax reference, counted on the real module. FLOPs are forward ones, a
    `flops_unit`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    scale: str
    mixer: str
    matched: bool
    reasons: tuple[str, ...]
    parameters: int
    reference_parameters: int
    ratio: float
    mixer_parameters: int
    reference_mixer_parameters: int
    mixer_ratio: float
    pays_in_ffn: bool
    total_parameters: int
    flops: int
    reference_flops: int
    flops_unit: str
    state_bytes: int
    reference_state_bytes: int
    length: int
    dim: int
    depth: int
    ffn_width: int
    reference_ffn_width: int
    hybrid: tuple[int, ...]
    mixer_options: SerializeAsAny[MixerConfig]


class Plan(BaseModel):
    """The layers of a run and of its reference, widths solved."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    layers: tuple[Layer, ...]
    reference: tuple[Layer, ...]
    mixer_options: SerializeAsAny[MixerConfig]


def _reference_layer(model: ModelConfig, causal: bool) -> Layer:
    softmax = registry.get(REFERENCE)
    return Layer(softmax, softmax.Config(causal=causal, heads=model.heads), model.ffn_width)


def _layer_parameters(layer: Layer, dim: int, length: int) -> int:
    return layer.mixer.cost(layer.config, dim, length).parameters


def _ffn_width(mixer_class: type[Mixer], mixer_parameters: int, reference_mixer: int, model: ModelConfig) -> int:
    """The feed-forward width that takes up what the mixer leaves over, at most 5 % from the reference's."""
    width = model.ffn_width + round((reference_mixer - mixer_parameters) / (3 * model.dim))
    if mixer_class.capabilities.pays_in_ffn:
        return max(width, 1)
    slack = int(FFN_TOLERANCE * model.ffn_width)
    return min(max(width, model.ffn_width - slack), model.ffn_width + slack)


def solve(config: RunConfig, spec: InputSpec) -> Plan:
    """Sizes the mixer at the task's length to the reference's mixer layer; the FFN takes up the rest. Reads no data."""
    model, length = config.model, sequence_length(spec)
    reference = _reference_layer(model, spec.causal)
    if baselines.is_baseline(config.mixer):
        return Plan(layers=(), reference=(reference,) * model.depth, mixer_options=config.mixer_options)
    budget = _layer_parameters(reference, model.dim, length)
    mixer_class = registry.get(config.mixer)
    if next(iter(mixer_class.candidates(config.mixer_options, model.dim, length)), None) is None:
        heads = config.mixer_options.heads
        raise UserError(
            f"budget: {config.mixer} has no size at dim={model.dim} with {heads} heads; take fewer: --set mixer.heads=…"
        )
    options = mixer_class.size(config.mixer_options, model.dim, length, budget)
    parameters = mixer_class.cost(options, model.dim, length).parameters
    layer = Layer(mixer_class, options, _ffn_width(mixer_class, parameters, budget, model))
    layers = tuple(reference if i in config.hybrid else layer for i in range(1, model.depth + 1))
    return Plan(layers=layers, reference=(reference,) * model.depth, mixer_options=options)


def _flops(layers: tuple[Layer, ...], spec: InputSpec, dim: int) -> int:
    positions, _ = flops_positions(spec)
    length = sequence_length(spec)
    per_position = sum(y.mixer.cost(y.config, dim, length).flops + 6 * dim * y.ffn_width for y in layers)
    return positions * per_position + outside_flops(spec, dim)


def _state_bytes(layers: tuple[Layer, ...], spec: InputSpec, dim: int) -> int:
    length = sequence_length(spec)
    return sum(y.mixer.cost(y.config, dim, length).state_bytes for y in layers) if spec.causal else 0


def certify(config: RunConfig, spec: InputSpec, plan: Plan) -> Certificate:
    """Counts the real modules on the meta device and says whether the budget was kept, and why not."""
    model, length = config.model, sequence_length(spec)
    if baselines.is_baseline(config.mixer):
        return _certify_baseline(config, spec, plan)
    backbone, reference = on_meta(spec, model, plan.layers), on_meta(spec, model, plan.reference)
    parameters, reference_parameters = budget_parameters(backbone), budget_parameters(reference)
    changed = [layer for i, layer in enumerate(plan.layers, 1) if i not in config.hybrid] or [plan.layers[0]]
    mixer_parameters = _mixer_parameters(backbone, plan.layers.index(changed[0]))
    reference_mixer = _mixer_parameters(reference, 0)
    ratio, mixer_ratio = parameters / reference_parameters, mixer_parameters / reference_mixer
    pays_in_ffn = registry.get(config.mixer).capabilities.pays_in_ffn
    reasons = []
    if abs(ratio - 1) > TOTAL_TOLERANCE:
        reasons.append(
            f"{parameters:,} parameters, the reference has {reference_parameters:,} ({ratio - 1:+.1%}; ±1 % is allowed)"
        )
    if abs(mixer_ratio - 1) > LAYER_TOLERANCE and not pays_in_ffn:
        counts = f"{mixer_parameters:,} parameters a mixer layer, the reference has {reference_mixer:,}"
        reasons.append(f"{counts} ({mixer_ratio - 1:+.1%}; ±5 % is allowed)")
    return Certificate(
        task=config.task,
        scale=config.scale,
        mixer=config.mixer,
        matched=not reasons,
        reasons=tuple(reasons),
        parameters=parameters,
        reference_parameters=reference_parameters,
        ratio=ratio,
        mixer_parameters=mixer_parameters,
        reference_mixer_parameters=reference_mixer,
        mixer_ratio=mixer_ratio,
        pays_in_ffn=pays_in_ffn,
        total_parameters=all_parameters(backbone),
        flops=_flops(plan.layers, spec, model.dim),
        reference_flops=_flops(plan.reference, spec, model.dim),
        flops_unit=flops_positions(spec)[1],
        state_bytes=_state_bytes(plan.layers, spec, model.dim),
        reference_state_bytes=_state_bytes(plan.reference, spec, model.dim),
        length=length,
        dim=model.dim,
        depth=model.depth,
        ffn_width=changed[0].ffn_width,
        reference_ffn_width=model.ffn_width,
        hybrid=config.hybrid,
        mixer_options=plan.mixer_options,
    )


def _certify_baseline(config: RunConfig, spec: InputSpec, plan: Plan) -> Certificate:
    """What a baseline holds beside the reference's; never matched."""
    assert isinstance(spec, SeriesInput)
    model, reference = config.model, on_meta(spec, config.model, plan.reference)
    with torch.device("meta"):
        baseline = baselines.build(config.mixer, spec, config.mixer_options, model)
        parameters, flops = baselines.parameters_of(baseline), baselines.flops_of(baseline, spec)
    reference_parameters = budget_parameters(reference)
    return Certificate(
        task=config.task,
        scale=config.scale,
        mixer=config.mixer,
        matched=False,
        reasons=(baselines.REASON,),
        parameters=parameters,
        reference_parameters=reference_parameters,
        ratio=parameters / reference_parameters,
        mixer_parameters=0,
        reference_mixer_parameters=_mixer_parameters(reference, 0),
        mixer_ratio=0.0,
        pays_in_ffn=False,
        total_parameters=parameters,
        flops=flops,
        reference_flops=_flops(plan.reference, spec, model.dim),
        flops_unit=flops_positions(spec)[1],
        state_bytes=0,
        reference_state_bytes=0,
        length=spec.look_back,
        dim=model.dim,
        depth=0,
        ffn_width=0,
        reference_ffn_width=model.ffn_width,
        hybrid=(),
        mixer_options=config.mixer_options,
    )


def _mixer_parameters(backbone: Backbone, layer: int) -> int:
    """Counted on the module: a mixer's own formula is not taken at its word."""
    block = backbone.trunk.blocks[layer]
    assert isinstance(block, Block)
    return all_parameters(block.mixer)


def nearest_fit(config: RunConfig, spec: InputSpec) -> str:
    """The solver's own choice of widths, for the message of a refusal, or an empty string where it does not fit
    either.
    """
    if baselines.is_baseline(config.mixer):
        return ""
    free = with_free_widths(config)
    plan = solve(free, spec)
    if not certify(free, spec, plan).matched:
        return ""
    return ", ".join(f"mixer.{name}={getattr(plan.mixer_options, name)}" for name in widths_of(config))


def widths_of(config: RunConfig) -> list[str]:
    """The mixer's options that the solver chooses where the user doesn't."""
    return [name for name, field in type(config.mixer_options).model_fields.items() if field.default is None]


def with_free_widths(config: RunConfig) -> RunConfig:
    """The same options with all widths left to the solver."""
    free = dict.fromkeys(widths_of(config))
    return config.model_copy(update={"mixer_options": config.mixer_options.model_copy(update=free)})


def check(config: RunConfig, spec: InputSpec) -> tuple[Plan, Certificate]:
    """Solves and certifies. Raises UserError with both counts and the nearest fit, unless the run is declared
    unmatched.
    """
    plan = solve(config, spec)
    certificate = certify(config, spec, plan)
    if certificate.matched or config.unmatched or baselines.is_baseline(config.mixer):
        return plan, certificate
    fit = nearest_fit(config, spec)
    advice = f"; what fits: {fit}" if fit else "; nothing near it fits at this shape"
    reasons = "; ".join(certificate.reasons)
    raise UserError(f"budget: {config.mixer} is not matched: {reasons}{advice} (or pass --unmatched: it never ranks)")
