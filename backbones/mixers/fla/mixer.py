"""A layer of flash-linear-attention (the optional package `fla`) as a mixer: the base class of those in `layers.py`.

Sizes and costs are formulas and do not need `fla`. Building a layer does, and running one needs a GPU: its kernels are
Triton.

FLOPs: the matrix products, the convolutions (2 per tap), and the recurrence on the [d_k, d_v] state of each head: 2 per
number for each read, write and correction, decays not counted. States are counted in fp32.

Shape letters: B batch, T tokens, D model width, H heads, K key width and V value width (all heads).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.errors import MixerError

PACKAGE = "flash-linear-attention"
INSTALL = "pip install 'mixer-suite[fla]'"
TAPS = 4  # of the short convolutions


class FlaConfig(MixerConfig):
    """Options of the layers whose width is solved."""

    width: int | None = Field(
        default=None, ge=1, description="value width V of all heads; solved for the budget when not given"
    )


@dataclass(frozen=True)
class Count:
    """Sizes of a layer's parameters and of its recurrence, from which its cost follows.

    Attributes:
        matrices: entries of its matrices.
        vectors: entries of its vectors.
        state: entries of the recurrent state.
        taps: entries of its convolutions.
        memory: entries of the state that convolutions or token shifts keep.
        touched: reads, writes and corrections of the recurrent state per token.
    """

    matrices: int
    vectors: int
    state: int
    taps: int = 0
    memory: int = 0
    touched: int = 2

    def cost(self) -> Cost:
        flops = 2 * (self.matrices + self.taps + self.touched * self.state)
        return Cost(self.matrices + self.taps + self.vectors, flops, 4 * (self.state + self.memory))


class Memory:
    """The cache that a layer of `fla` expects, for one layer: the state after its last call."""

    def __init__(self, recurrent: Any = None, convolutions: Any = None, seen: int = 0) -> None:
        self.recurrent, self.convolutions, self.seen = recurrent, convolutions, seen

    def __len__(self) -> int:
        return int(self.recurrent is not None)

    def __getitem__(self, layer_idx: int) -> dict[str, Any]:
        return {"recurrent_state": self.recurrent, "conv_state": self.convolutions}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def update(self, *, recurrent_state: Any, conv_state: Any = None, offset: int = 1, **_: Any) -> None:
        self.recurrent, self.convolutions, self.seen = recurrent_state, conv_state, self.seen + offset


def runs_kernels(device: torch.device) -> bool:
    """Whether Triton kernels can run there."""
    return device.type in ("cuda", "xpu")


class FlaMixer(Mixer):
    """A layer of `fla`, which draws its own parameters. Subclasses define its name, constructor arguments and cost.

    The kernels are made for bf16 autocast; fp32 inputs may be computed with TF32 products. Short sequences without
    gradients use another kernel than training: the two agree up to rounding.
    """

    Config: ClassVar[type[MixerConfig]] = FlaConfig
    capabilities = Capabilities(bidirectional=False, constant_state=True, fp64=False)
    package = PACKAGE
    no_weight_decay = frozenset({"A_log", "dt_bias", "D", "x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "r_k"})
    layer_class: ClassVar[str]
    module: ClassVar[str] = "fla.layers"
    step_of_width: ClassVar[int] = 1  # the layer accepts multiples of this times the heads

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        if not config.causal:
            raise MixerError(f"fla's {self.layer_class} is causal only")
        self.layer = self._new_layer()

    @classmethod
    def obstacle(cls, device: torch.device | None = None) -> str:
        try:
            version(PACKAGE)
        except PackageNotFoundError:
            return f"{PACKAGE} is not installed: {INSTALL}"
        if device is not None and device.type != "meta" and not runs_kernels(device):
            return (
                f"fla's kernels are Triton and need a GPU, {device.type!r} was given; suite budget and "
                "suite show work without one"
            )
        return ""

    def _new_layer(self) -> nn.Module:
        if obstacle := self.obstacle():
            raise MixerError(f"fla's {self.layer_class} cannot be built: {obstacle}")
        # the warnings are about a missing GPU, optional packages, and RWKV-7's correctness, which its summary repeats
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                layers = importlib.import_module(self.module)
            except Exception as error:
                raise MixerError(
                    f"fla cannot be imported: {type(error).__name__}: {error}; the tested version is 0.6.0: {INSTALL}"
                ) from error
            layer: nn.Module = getattr(layers, self.layer_class)(layer_idx=0, **self.arguments(self.config, self.dim))
        return layer

    def reset_parameters(self) -> None:
        with next(self.layer.parameters()).device:
            initial = self._new_layer()
        self.layer.load_state_dict(initial.state_dict())

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        if x_BTD.is_meta:  # kernels do not run there, and only the shape matters
            return torch.empty_like(x_BTD)
        return self._run(x_BTD, context.mask_BT, None)

    def init_state(self, batch: int, max_len: int) -> State:
        return State()

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        held = state.tensors
        convolutions = tuple(tensor for name, tensor in held.items() if name.startswith("convolution")) or None
        single = held.get("convolution")
        memory = Memory(held.get("recurrent"), single if single is not None else convolutions, state.position)
        y_BD = self._run(x_BD.unsqueeze(1), None, memory).squeeze(1)
        kept: dict[str, Tensor] = {"recurrent": memory.recurrent}
        if isinstance(memory.convolutions, tuple):
            kept |= {f"convolution{i}": tensor for i, tensor in enumerate(memory.convolutions) if tensor is not None}
        elif memory.convolutions is not None:
            kept["convolution"] = memory.convolutions
        return y_BD, State(kept, state.position + 1)

    def _run(self, x_BTD: Tensor, mask_BT: Tensor | None, memory: Memory | None) -> Tensor:
        if obstacle := self.obstacle(x_BTD.device):
            raise MixerError(f"fla's {self.layer_class} cannot run: {obstacle}")
        y_BTD: Tensor = self.layer(x_BTD, attention_mask=mask_BT, past_key_values=memory, use_cache=memory is not None)[
            0
        ]
        return y_BTD

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        assert isinstance(config, FlaConfig)
        grid = cls.step_of_width * config.heads
        if config.width is not None and config.width % grid:
            raise MixerError(
                f"fla's {cls.layer_class}: width {config.width} must be a multiple of {grid} with {config.heads} heads"
            )
        widths = [config.width] if config.width else range(2 * dim // grid * grid, 0, -grid)
        return [config.model_copy(update={"width": width}) for width in widths]

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        """Arguments of the layer's constructor."""
        raise NotImplementedError


def solved(config: MixerConfig) -> int:
    """V of a config whose width is solved."""
    assert isinstance(config, FlaConfig)
    assert config.width is not None
    return config.width


def convolved(keys: int, values: int) -> dict[str, int]:
    """Short convolutions over queries, keys and values, and the memory they keep."""
    return {"taps": TAPS * (2 * keys + values), "memory": TAPS * (2 * keys + values)}
