"""The certificate of a run: what its model costs compared with its softmax reference, counted on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializeAsAny, SerializerFunctionWrapHandler, model_serializer
from torch import nn

from backbones.base import Block, Layer
from backbones.canon import canon_cost
from backbones.mixers.base import Mixer, MixerConfig
from backbones.mixers.stored import stored_numbers
from suite.config.run_config import ModelConfig, RunConfig
from suite.models.inputs import Backbone, adapter
from suite.models.meta_device import meta_device
from tasks.base import InputSpec

#: Modules that hold a backbone's embeddings and head; the budget counts the others.
OUTSIDE_BUDGET = ("embedding", "trunk.positions", "head")


class Certificate(BaseModel):
    """What a model costs compared with its softmax reference, counted on the real module. FLOPs are those of a forward
    pass, per `flops_unit`; `flops_verified` says whether the suite's tests or the mixer's naive reference
    implementation verify their formula. Records made before that field existed have None and leave it out.
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
    flops_verified: bool | None = None
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

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        if self.flops_verified is None:
            del content["flops_verified"]
        return content


@dataclass(frozen=True)
class Counts:
    """What a model has and costs.

    parameters: those that the budget counts, without embeddings and head.
    mixer_parameters: those of one mixer layer, with the short convolution before it.
    flops: of a forward pass, per unit of the task's inputs.
    length: tokens that its layers see.
    """

    parameters: int
    mixer_parameters: int
    total_parameters: int
    flops: int
    state_bytes: int
    length: int
    depth: int
    ffn_width: int


def count(spec: InputSpec, model: ModelConfig, layers: tuple[Layer, ...], mixer_layer: int = 0) -> Counts:
    """Counts a backbone on the meta device, without memory and without data.

    Args:
        spec: the task's inputs and outputs.
        model: the backbone's shape.
        layers: one per block, sized.
        mixer_layer: the layer, from 0, whose mixer and feed-forward width are reported.

    Returns:
        Parameters counted on the module, because a mixer's own formula is not relied on; FLOPs and decoding state
        from the layers' formulas.
    """
    with meta_device():
        backbone = adapter(spec).backbone(model, layers)
    block = backbone.trunk.blocks[mixer_layer]
    assert isinstance(block, Block)
    return Counts(
        parameters=_budget_parameters(backbone),
        mixer_parameters=_all_parameters(block.mixer) + _taps_of_mixer(block),
        total_parameters=_all_parameters(backbone),
        flops=_flops(layers, spec, model.dim),
        state_bytes=_state_bytes(layers, spec, model.dim),
        length=adapter(spec).length,
        depth=len(layers),
        ffn_width=layers[mixer_layer].ffn_width,
    )


def certificate(
    config: RunConfig,
    spec: InputSpec,
    own: Counts,
    reference: Counts,
    *,
    reasons: Sequence[str],
    pays_in_ffn: bool,
    mixer_options: MixerConfig,
    flops_verified: bool,
) -> Certificate:
    """A certificate from the counts of a model and its reference.

    Args:
        config: the run.
        spec: the task's inputs and outputs.
        own: the counts of the run's model.
        reference: those of its softmax reference.
        reasons: why the run is not matched; none where it is.
        pays_in_ffn: whether the mixer is matched on the total only.
        mixer_options: the mixer's options, widths solved.
        flops_verified: whether the formula of the mixer's FLOPs is compared with a count.

    Returns:
        The certificate.
    """
    return Certificate(
        task=config.task,
        scale=config.scale,
        mixer=config.mixer,
        matched=not reasons,
        reasons=tuple(reasons),
        parameters=own.parameters,
        reference_parameters=reference.parameters,
        ratio=own.parameters / reference.parameters,
        mixer_parameters=own.mixer_parameters,
        reference_mixer_parameters=reference.mixer_parameters,
        mixer_ratio=own.mixer_parameters / reference.mixer_parameters,
        pays_in_ffn=pays_in_ffn,
        total_parameters=own.total_parameters,
        flops=own.flops,
        reference_flops=reference.flops,
        flops_verified=flops_verified,
        flops_unit=adapter(spec).unit,
        state_bytes=own.state_bytes,
        reference_state_bytes=reference.state_bytes,
        length=own.length,
        dim=config.model.widened.dim,
        depth=own.depth,
        ffn_width=own.ffn_width,
        reference_ffn_width=config.model.ffn_width,
        hybrid=config.hybrid,
        mixer_options=mixer_options,
    )


def _budget_parameters(backbone: Backbone) -> int:
    """What `_kept` counts, without embeddings (positions among them) and head."""
    return sum(n for name, n in _kept(backbone).items() if not name.startswith(OUTSIDE_BUDGET))


def _all_parameters(module: nn.Module) -> int:
    return sum(_kept(module).values())


def _taps_of_mixer(block: Block) -> int:
    """Parameters of the short convolution before the mixer."""
    return sum(taps.numel() for place, taps in block.canon.taps.items() if place == "A")


def _kept(module: nn.Module) -> dict[str, int]:
    """Trainable parameters, and of mixers also what they keep in frozen parameters and persistent buffers. The
    backbone's own buffers (statistics of norms, the constant sequence of some controls) are the same for every mixer.
    """
    found = {name: p.numel() for name, p in module.named_parameters() if p.requires_grad}
    for prefix, part in module.named_modules():
        if isinstance(part, Mixer):
            found |= {f"{prefix}.{name}".lstrip("."): n for name, n in stored_numbers(part).items()}
    return found


def _flops(layers: tuple[Layer, ...], spec: InputSpec, dim: int) -> int:
    inputs = adapter(spec)
    per_position = sum(y.mixer.cost(y.config, dim, inputs.length).flops + 6 * dim * y.ffn_width for y in layers)
    per_position += sum(canon_cost(y.canon, dim, y.config.causal).flops for y in layers)
    return inputs.positions * per_position + inputs.outside_flops(dim)


def _state_bytes(layers: tuple[Layer, ...], spec: InputSpec, dim: int) -> int:
    length, total = adapter(spec).length, 0
    for y in layers if spec.causal else ():
        total += y.mixer.cost(y.config, dim, length).state_bytes + canon_cost(y.canon, dim, y.config.causal).state_bytes
    return total
