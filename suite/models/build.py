"""From a task's input spec and a budget plan to a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from backbones.base import Layer, TrunkConfig
from backbones.decoder import Decoder
from backbones.forecaster import Forecaster, patch_count
from backbones.vit import VisionTransformer, patch_grid
from suite.config.run_config import ModelConfig
from tasks.base import ImageInput, InputSpec, SeriesInput, TextInput

Backbone = Decoder | VisionTransformer | Forecaster

#: Modules that hold a backbone's embeddings and head; the budget counts what is left.
OUTSIDE_BUDGET = ("embedding", "trunk.positions", "head")


def sequence_length(spec: InputSpec) -> int:
    """Tokens T that the mixers see."""
    match spec:
        case TextInput():
            return spec.length
        case ImageInput():
            rows, columns = patch_grid(spec.height, spec.width, spec.patch)
            return rows * columns
        case SeriesInput():
            return patch_count(spec.look_back, spec.patch, spec.stride)


def build_backbone(spec: InputSpec, model: ModelConfig, layers: Sequence[Layer]) -> Backbone:
    """The backbone on torch's current default device, parameters not drawn yet (call `reset_parameters`)."""
    trunk = TrunkConfig(
        model.dim, sequence_length(spec), tuple(layers), drop_path=model.drop_path, dropout=model.dropout
    )
    match spec:
        case TextInput():
            return Decoder(trunk, spec.vocab, model.embedding_std)
        case ImageInput():
            return VisionTransformer(trunk, spec.channels, spec.height, spec.width, spec.patch, spec.classes)
        case SeriesInput():
            sizes = spec.look_back, spec.horizon, spec.channels, spec.patch, spec.stride
            return Forecaster(trunk, *sizes, spec.head, model.head_scale)


def budget_parameters(backbone: nn.Module) -> int:
    """Trainable parameters without embeddings (positions among them) and head."""
    return sum(
        p.numel() for name, p in backbone.named_parameters() if p.requires_grad and not name.startswith(OUTSIDE_BUDGET)
    )


def all_parameters(backbone: nn.Module) -> int:
    return sum(p.numel() for p in backbone.parameters() if p.requires_grad)


def on_meta(spec: InputSpec, model: ModelConfig, layers: Sequence[Layer]) -> Backbone:
    """The same backbone without memory, for counting."""
    with torch.device("meta"):
        return build_backbone(spec, model, layers)


def outside_flops(spec: InputSpec, dim: int) -> int:
    """Forward FLOPs of embedding and head for one token (text), image, or window (all channels)."""
    length = sequence_length(spec)
    match spec:
        case TextInput():
            return 2 * dim * spec.vocab
        case ImageInput():
            return 2 * length * spec.channels * spec.patch**2 * dim + 2 * dim * spec.classes
        case SeriesInput():
            return spec.channels * (2 * length * spec.patch * dim + 2 * length * dim * spec.horizon * spec.outputs)


def flops_positions(spec: InputSpec) -> tuple[int, str]:
    """Token positions that one unit of the FLOP count stands for, and the unit's name."""
    match spec:
        case TextInput():
            return 1, "token"
        case ImageInput():
            return sequence_length(spec), "image"
        case SeriesInput():
            return sequence_length(spec) * spec.channels, "window"
