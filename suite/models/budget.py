"""The budget: size a mixer for a task, certify the resulting model, or refuse it with both parameter counts.

The reference is the softmax backbone of the same shape, without the short convolutions of `model.canon`. A run is
matched when its parameters without embeddings and head are within 1 % of the reference's and every mixer layer is
within 5 % of the reference's mixer layer. A control that pays in the FFN is matched on the total only. With
`model.width_factor` the total is matched to that multiple of the reference's, so that the reference itself can be run
at several sizes; heads make widths too coarse for a limit on single layers then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, SerializeAsAny

from backbones.base import Layer
from backbones.canon import canon_cost
from backbones.mixers.base import Mixer, MixerConfig
from backbones.mixers.priors.softmax import Softmax
from suite.config.run_config import OWN_ORIGINS, ModelConfig, RunConfig
from suite.errors import UserError
from suite.models.certificate import Certificate, Counts, certificate, count
from suite.models.inputs import adapter
from tasks.base import InputSpec

TOTAL_TOLERANCE = 0.01
LAYER_TOLERANCE = 0.05
FFN_TOLERANCE = 0.05  # how far the feed-forward width may move to use up what the mixer leaves


class Plan(BaseModel):
    """The layers of a run's model and of its reference, all widths solved; `shape` is that of the run's model."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    shape: ModelConfig
    layers: tuple[Layer, ...]
    reference: tuple[Layer, ...]
    mixer_options: SerializeAsAny[MixerConfig]


def reference_layers(model: ModelConfig, causal: bool) -> tuple[Layer, ...]:
    """The layers of the softmax reference.

    Args:
        model: the backbone's shape.
        causal: whether the task's mixers are.

    Returns:
        One layer per block, all equal.
    """
    return (Layer(Softmax, Softmax.Config(causal=causal, heads=model.heads), model.ffn_width),) * model.depth


def solve(mixer: type[Mixer], config: RunConfig, spec: InputSpec) -> Plan:
    """Sizes the mixer at the task's length to the reference's mixer layer; the FFN uses up the rest. The short
    convolution before a mixer counts towards its layer, that before the FFN towards the FFN. Reads no data.

    Args:
        mixer: the mixer of every layer that is not one of `config.hybrid`.
        config: the run, its mixer's widths given or left open (None).
        spec: the task's inputs and outputs.

    Returns:
        The layers of the run and of its reference.

    Raises:
        UserError: the mixer has no size at this width with these heads.
    """
    shape, length = config.model.widened, adapter(spec).length
    reference, softmax = (reference_layers(model, spec.causal) for model in (config.model, shape))
    if next(iter(mixer.candidates(config.mixer_options, shape.dim, length)), None) is None:
        heads = config.mixer_options.heads
        raise UserError(
            f"budget: {config.mixer} has no size at dim={shape.dim} with {heads} heads; use fewer: --set mixer.heads=…"
        )
    target = reference[0].mixer.cost(reference[0].config, config.model.dim, length).parameters
    taps, others = _taps(shape, "A"), _taps(shape, "C")
    budget = round(config.model.width_factor * target) - taps
    options = mixer.size(config.mixer_options, shape.dim, length, budget)
    left_over = budget - mixer.cost(options, shape.dim, length).parameters
    layer = Layer(mixer, options, _ffn_width(mixer, left_over - others, shape), shape.canon)
    kept = replace(softmax[0], ffn_width=_ffn_width(Softmax, -taps - others, shape), canon=shape.canon)
    layers = tuple(kept if i in config.hybrid else layer for i in range(1, shape.depth + 1))
    return Plan(shape=shape, layers=layers, reference=reference, mixer_options=options)


def certify(mixer: type[Mixer], config: RunConfig, spec: InputSpec, plan: Plan) -> Certificate:
    """Counts the run's model and its reference, and decides whether the budget was kept.

    Args:
        mixer: as for `solve`.
        config: the run.
        spec: the task's inputs and outputs.
        plan: what `solve` returned.

    Returns:
        The certificate; where it is not matched, it says why.
    """
    changed = next((i for i in range(len(plan.layers)) if i + 1 not in config.hybrid), 0)
    own, reference = count(spec, plan.shape, plan.layers, changed), count(spec, config.model, plan.reference)
    reasons = _reasons(own, reference, config.model.width_factor, pays_in_ffn=mixer.capabilities.pays_in_ffn)
    return certificate(
        config,
        spec,
        own,
        reference,
        reasons=reasons,
        pays_in_ffn=mixer.capabilities.pays_in_ffn,
        mixer_options=plan.mixer_options,
        flops_verified=config.mixer_origin in OWN_ORIGINS or getattr(mixer, "plain_forward", None) is not None,
    )


def widths_of(config: RunConfig) -> list[str]:
    """The mixer's options that the solver chooses where the user does not.

    Args:
        config: the run.

    Returns:
        Their names.
    """
    return config.mixer_options.solved_options()


def with_free_widths(config: RunConfig) -> RunConfig:
    """The same run with all widths left to the solver.

    Args:
        config: the run.

    Returns:
        A copy.
    """
    free = dict.fromkeys(widths_of(config))
    return config.model_copy(update={"mixer_options": config.mixer_options.model_copy(update=free)})


def _taps(shape: ModelConfig, place: Literal["A", "C"]) -> int:
    """Parameters of a layer's short convolution at a place, 0 where it has none."""
    return canon_cost(place, shape.dim, causal=True).parameters if place in shape.canon else 0


def _ffn_width(mixer: type[Mixer], left_over: int, model: ModelConfig) -> int:
    """The feed-forward width that uses up the parameters that the mixer leaves, at most 5 % from the reference's."""
    width = model.ffn_width + round(left_over / (3 * model.dim))
    if mixer.capabilities.pays_in_ffn:
        return max(width, 1)
    slack = int(FFN_TOLERANCE * model.ffn_width)
    return min(max(width, model.ffn_width - slack), model.ffn_width + slack)


def _reasons(own: Counts, reference: Counts, factor: float = 1.0, *, pays_in_ffn: bool) -> list[str]:
    """Why a model does not have `factor` times the reference's parameters; none where it is matched."""
    ratio = own.parameters / reference.parameters / factor
    mixer_ratio = own.mixer_parameters / reference.mixer_parameters
    times, reasons = "" if factor == 1 else f"{factor:g} times ", []
    if abs(ratio - 1) > TOTAL_TOLERANCE:
        reasons.append(
            f"{own.parameters:,} parameters, the reference has {times}{reference.parameters:,} "
            f"({ratio - 1:+.1%}; ±1 % is allowed)"
        )
    if abs(mixer_ratio - 1) > LAYER_TOLERANCE and factor == 1 and not pays_in_ffn:
        reasons.append(
            f"{own.mixer_parameters:,} parameters per mixer layer, the reference has {reference.mixer_parameters:,} "
            f"({mixer_ratio - 1:+.1%}; ±5 % is allowed)"
        )
    return reasons
