"""Registered layers of flash-linear-attention 0.6, complete with the convolutions, gates and norms of their authors.

Widths that a layer's paper ties together stay tied, so that one value width V is solved for the budget. All are causal.
Shape letters: D model width, H heads, K key width and V value width (all heads), d width per head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from backbones.mixers.base import Cost, MixerConfig
from backbones.mixers.errors import MixerError
from backbones.mixers.fla.mixer import TAPS, Count, FlaConfig, FlaMixer, convolved, solved
from backbones.mixers.registry import register


@register("fla/gla")
class FlaGla(FlaMixer):
    """Gated linear attention: decays per key channel from a map of rank 16, an output gate, K = V/2."""

    layer_class = "GatedLinearAttention"
    paper = "arXiv 2312.06635"
    summary = "the gated linear attention layer of flash-linear-attention"
    step_of_width = 2

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        return {
            "hidden_size": dim,
            "num_heads": config.heads,
            "expand_k": solved(config) / 2 / dim,
            "expand_v": solved(config) / dim,
        }

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        V = solved(config)
        K, rank = V // 2, 16
        matrices = 2 * dim * K + 3 * dim * V + rank * (dim + K)
        return Count(matrices, vectors=K + V // config.heads, state=K * V // config.heads).cost()


@register("fla/simple-gla")
class FlaSimpleGla(FlaMixer):
    """Gated linear attention with one decay per head, short convolutions and an output gate, K = V."""

    layer_class = "SimpleGatedLinearAttention"
    module = "fla.layers.simple_gla"
    paper = "arXiv 2312.06635"
    summary = "gated linear attention with one decay per head, the layer of flash-linear-attention"

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        return {
            "hidden_size": dim,
            "num_heads": config.heads,
            "expand_k": solved(config) / dim,
            "expand_v": solved(config) / dim,
        }

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        V, H = solved(config), config.heads
        return Count(5 * dim * V + dim * H, vectors=H + V // H, state=V * V // H, **convolved(V, V)).cost()


@register("fla/retnet")
class FlaRetNet(FlaMixer):
    """Multi-scale retention: fixed decays, rotary positions, an output gate, K = V/2."""

    layer_class = "MultiScaleRetention"
    paper = "arXiv 2307.08621"
    summary = "the retention layer of flash-linear-attention"
    step_of_width = 4

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        return {
            "hidden_size": dim,
            "num_heads": config.heads,
            "expand_k": solved(config) / 2 / dim,
            "expand_v": solved(config) / dim,
        }

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        V, H = solved(config), config.heads
        return Count(4 * dim * V, vectors=V // H, state=V * V // 2 // H).cost()


@register("fla/delta-net")
class FlaDeltaNet(FlaMixer):
    """The delta rule with short convolutions, K = V. Its kernel for long sequences accepts bf16 only."""

    layer_class = "DeltaNet"
    paper = "arXiv 2406.06484"
    summary = "the DeltaNet layer of flash-linear-attention; above 64 tokens in bf16 only"

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        return {
            "hidden_size": dim,
            "num_heads": config.heads,
            "expand_k": solved(config) / dim,
            "expand_v": solved(config) / dim,
        }

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        V, H = solved(config), config.heads
        return Count(4 * dim * V + dim * H, vectors=V // H, state=V * V // H, touched=3, **convolved(V, V)).cost()


@register("fla/gated-deltanet")
class FlaGatedDeltaNet(FlaMixer):
    """The delta rule with a decay per head, short convolutions and an output gate, K = V/2."""

    layer_class = "GatedDeltaNet"
    paper = "arXiv 2412.06464"
    summary = "the Gated DeltaNet layer of flash-linear-attention"
    step_of_width = 2

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        return {
            "hidden_size": dim,
            "num_heads": config.heads,
            "head_dim": solved(config) // 2 // config.heads,
            "expand_v": 2,
        }

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        V, H = solved(config), config.heads
        matrices = 4 * dim * V + 2 * dim * H
        return Count(matrices, vectors=2 * H + V // H, state=V * V // 2 // H, touched=3, **convolved(V // 2, V)).cost()


@register("fla/kda")
class FlaKda(FlaMixer):
    """Kimi delta attention: the delta rule with a decay per key channel from a map of rank d, K = V."""

    layer_class = "KimiDeltaAttention"
    paper = "arXiv 2510.26692"
    summary = "the Kimi delta attention layer of flash-linear-attention"

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        return {"hidden_size": dim, "num_heads": config.heads, "head_dim": solved(config) // config.heads}

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        V, H = solved(config), config.heads
        d = V // H
        matrices = 4 * dim * V + 2 * d * (dim + V) + dim * H
        return Count(matrices, vectors=H + 2 * V + d, state=V * d, touched=3, **convolved(V, V)).cost()


@register("fla/hgrn2")
class FlaHgrn2(FlaMixer):
    """Gated linear recurrence with expanded state; all widths are D: 4 D² + D parameters."""

    Config = MixerConfig
    layer_class = "HGRN2Attention"
    paper = "arXiv 2404.07904"
    summary = "the HGRN2 layer of flash-linear-attention"

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        return {"hidden_size": dim, "num_heads": config.heads, "expand_ratio": None}

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        if dim % config.heads:
            raise MixerError(f"fla's {cls.layer_class}: {config.heads} heads do not divide the width {dim}")
        return [config]

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        return Count(4 * dim * dim, vectors=dim, state=dim * dim // config.heads).cost()


class FlaMamba2Config(FlaConfig):
    state_width: int = Field(default=64, ge=1, description="state size N per channel")


@register("fla/mamba2")
class FlaMamba2(FlaMixer):
    """Mamba-2: inner width V in H heads, B and C of size N shared by the heads, a convolution with bias over V + 2N.

    Without the package mamba-ssm the layer uses its authors' PyTorch implementation, in chunks of 64 tokens; its norm
    is a Triton kernel in both cases.
    """

    Config = FlaMamba2Config
    layer_class = "Mamba2"
    paper = "arXiv 2405.21060"
    summary = "the Mamba-2 layer of flash-linear-attention"

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        assert isinstance(config, FlaMamba2Config)
        V = solved(config)
        inner = {
            "expand": (V + 0.5) / dim,
            "head_dim": V // config.heads,
            "state_size": config.state_width,
        }  # V = int(expand · D)
        return {"hidden_size": dim, "chunk_size": 64, "backend": "triton", **inner}

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        assert isinstance(config, FlaMamba2Config)
        V, N, H = solved(config), config.state_width, config.heads
        channels = V + 2 * N
        matrices = dim * (V + channels + H) + dim * V
        return Count(
            matrices, vectors=channels + 3 * H + V, state=V * N, taps=TAPS * channels, memory=TAPS * channels
        ).cost()


@register("fla/rwkv7")
class FlaRwkv7(FlaMixer):
    """RWKV-7 time mixing, without the values of the first layer mixed in. K = D, V is solved.

    The layer warns that this implementation may be wrong: compare with the official one before reporting results.
    """

    layer_class = "RWKV7Attention"
    paper = "arXiv 2503.14456"
    summary = (
        "the RWKV-7 layer of flash-linear-attention, no value residual; fla itself warns that it "
        "may differ from the official one"
    )

    @classmethod
    def arguments(cls, config: MixerConfig, dim: int) -> Mapping[str, Any]:
        if dim % config.heads:
            raise MixerError(f"fla's {cls.layer_class}: {config.heads} heads do not divide the width {dim}")
        sizes = {"head_dim": dim // config.heads, "value_dim": solved(config), "num_hidden_layers": 2}
        return {"hidden_size": dim, **sizes, **dict(zip(_RANKS, _rwkv7_ranks(config, dim), strict=True))}

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        V = solved(config)
        decay, gate, rate = _rwkv7_ranks(config, dim)
        matrices = 2 * dim * (dim + V) + 2 * dim * (decay + rate) + gate * (dim + V)
        return Count(matrices, vectors=11 * dim + 2 * V, state=dim * V // config.heads, memory=dim, touched=4).cost()


_RANKS = ("decay_low_rank_dim", "gate_low_rank_dim", "a_low_rank_dim")


def _rwkv7_ranks(config: MixerConfig, dim: int) -> tuple[int, int, int]:
    """Ranks of the maps to decay, gate and learning rate: the layer's own defaults, multiples of 32."""
    factor = dim / config.heads / 64

    def rank(scale: float) -> int:
        return max(32, round(scale * dim**0.5 / 32) * 32)

    return rank(2.5 * factor), rank(5), rank(2.5 * factor)
