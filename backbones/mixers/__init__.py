"""The sequence mixers, their one registry, and `build`: a mixer as a layer of anyone's PyTorch model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backbones.mixers.base import Mixer

__all__ = ["build"]


def build(
    mixer: str | type[Mixer],
    dim: int,
    length: int,
    *,
    causal: bool = True,
    budget: int | None = None,
    **options: object,
) -> Mixer:
    """One layer, `[B, T, D]` to `[B, T, D]`, sized to a parameter budget and with initial parameters.

        layer = build("fem", dim=256, length=1024, causal=True, heads=4)

    Widths that are not given as options are solved for the budget. The layer is made on torch's default device.

    Args:
        mixer: a registered name, `path/to/file.py:Class`, or a subclass of `Mixer`.
        dim: model width D.
        length: the longest sequence, in tokens.
        causal: whether a position sees itself and the past only. Only causal layers decode.
        budget: parameters of the layer; without it those of softmax attention, `4·D²`.
        options: the mixer's own options, as `Config` of its class defines them: `heads`, and for `fem` `d_v`, `lse`, …

    Returns:
        An `nn.Module` with `forward(x_BTD, context)`, and `init_state(batch, max_len)` and `step(x_BD, state, context)`
        where it is causal.

    Raises:
        MixerError: in one line, where the mixer or an option is unknown or invalid, where no size is within 5 % of the
            budget (not checked where a width but no budget is given, nor for mixers that are matched through the
            feed-forward layer), or where the mixer cannot be built on this machine.
    """
    # not at the top: whoever imports a part of this package (the errors, say) would load torch, `suite --help` included
    from backbones.mixers.library import build_layer

    return build_layer(mixer, dim, length, budget, {"causal": causal, **options})
