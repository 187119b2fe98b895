"""One adapter for each kind of input: how a task's inputs become a backbone's tokens, and how its costs are counted.

A new kind of input needs its spec (`tasks/base.py`), its backbone (`backbones/`) and an adapter here.

Shape letters: T tokens, D model width, C channels, N look-back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from backbones.base import Layer, TrunkConfig
from backbones.decoder import Decoder
from backbones.forecaster import Forecaster, patch_count
from backbones.vit import VisionTransformer, patch_grid
from suite.config.run_config import ModelConfig
from tasks.base import ImageInput, InputSpec, SeriesInput, TextInput

Backbone = Decoder | VisionTransformer | Forecaster
S = TypeVar("S", bound=InputSpec)


class InputAdapter(ABC, Generic[S]):
    """What the suite must know of one kind of input; made by `adapter`.

    unit: what a certificate counts FLOPs per.
    """

    unit: ClassVar[str]

    def __init__(self, spec: S) -> None:
        self.spec = spec

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens T that the mixers see."""

    @property
    @abstractmethod
    def positions(self) -> int:
        """Token positions in one unit of the FLOP count."""

    @abstractmethod
    def outside_flops(self, dim: int) -> int:
        """Forward FLOPs of the embedding and the head.

        Args:
            dim: model width D.

        Returns:
            FLOPs per `unit`.
        """

    def backbone(self, model: ModelConfig, layers: Sequence[Layer]) -> Backbone:
        """The backbone on PyTorch's current default device.

        Args:
            model: its shape.
            layers: one per block, sized.

        Returns:
            The backbone, its parameters not drawn yet (call `reset_parameters`).
        """
        trunk = TrunkConfig(model.dim, self.length, tuple(layers), drop_path=model.drop_path, dropout=model.dropout)
        return self._around(trunk, model)

    @abstractmethod
    def _around(self, trunk: TrunkConfig, model: ModelConfig) -> Backbone:
        """The trunk with this input's embedding and head."""

    @abstractmethod
    def random_constant(self, generator: torch.Generator) -> Tensor:
        """A random constant sequence, for mixers that take their scores from one.

        Args:
            generator: the random numbers.

        Returns:
            A tensor for the backbone's `set_constant`.
        """

    def constant_from(self, example: Tensor) -> Tensor:
        """The constant sequence that a training example stands for.

        Args:
            example: one example's inputs, without the batch dimension.

        Returns:
            A tensor for the backbone's `set_constant`.
        """
        return example


class _TextAdapter(InputAdapter[TextInput]):
    """Token ids `[T]`, read by a causal decoder."""

    unit = "token"

    @property
    def length(self) -> int:
        return self.spec.length

    @property
    def positions(self) -> int:
        return 1

    def outside_flops(self, dim: int) -> int:
        return 2 * dim * self.spec.vocab

    def _around(self, trunk: TrunkConfig, model: ModelConfig) -> Backbone:
        return Decoder(trunk, self.spec.vocab, model.embedding_std)

    def random_constant(self, generator: torch.Generator) -> Tensor:
        return torch.randint(self.spec.vocab, (self.spec.length,), generator=generator)


class _ImageAdapter(InputAdapter[ImageInput]):
    """Images `[C, height, width]`, cut into patches."""

    unit = "image"

    @property
    def length(self) -> int:
        rows, columns = patch_grid(self.spec.height, self.spec.width, self.spec.patch)
        return rows * columns

    @property
    def positions(self) -> int:
        return self.length

    def outside_flops(self, dim: int) -> int:
        s = self.spec
        return 2 * self.length * s.channels * s.patch**2 * dim + 2 * dim * s.classes

    def _around(self, trunk: TrunkConfig, model: ModelConfig) -> Backbone:
        s = self.spec
        return VisionTransformer(trunk, s.channels, s.height, s.width, s.patch, s.classes)

    def random_constant(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self.spec.channels, self.spec.height, self.spec.width, generator=generator)


class _SeriesAdapter(InputAdapter[SeriesInput]):
    """Windows `[N, C]`; each channel is a sequence of patches."""

    unit = "window"

    @property
    def length(self) -> int:
        return patch_count(self.spec.look_back, self.spec.patch, self.spec.stride)

    @property
    def positions(self) -> int:
        return self.length * self.spec.channels

    def outside_flops(self, dim: int) -> int:
        s = self.spec
        return s.channels * (2 * self.length * s.patch * dim + 2 * self.length * dim * s.horizon * s.outputs)

    def _around(self, trunk: TrunkConfig, model: ModelConfig) -> Backbone:
        s = self.spec
        sizes = s.look_back, s.horizon, s.channels, s.patch, s.stride
        return Forecaster(trunk, *sizes, s.head, model.head_scale)

    def random_constant(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self.spec.look_back, generator=generator)

    def constant_from(self, example: Tensor) -> Tensor:
        return example[:, 0]


_ADAPTERS: dict[type, type[InputAdapter[Any]]] = {
    TextInput: _TextAdapter,
    ImageInput: _ImageAdapter,
    SeriesInput: _SeriesAdapter,
}


def adapter(spec: InputSpec) -> InputAdapter[Any]:
    """The adapter of a task's inputs.

    Args:
        spec: what the task's backbone reads and returns.

    Returns:
        The adapter; making it reads no data and builds no model.
    """
    return _ADAPTERS[type(spec)](spec)
