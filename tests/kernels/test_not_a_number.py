"""A run that diverges has to see it: what is not a number comes out of a compiled kernel where it comes out of
PyTorch's form.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backbones.mixers.rotary import rotate
from kernels.attention import softmax_read
from kernels.channelwise import channelwise_read
from kernels.free_energy import free_energy_read
from kernels.gates import gated_mix
from kernels.hyper.lag_mixing import LagMixing, lag_mix
from kernels.lag_layout import Layout
from kernels.linear.sums import decayed_sums
from kernels.projection import modulated_projection
from kernels.rows import rms_norm, swiglu
from kernels.scan import diagonal_scan
from kernels.selective.sums import selective_sums

B, T, H = 2, 70, 2
Form = Callable[..., Tensor]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def lag_mixed(
    q: Tensor, k: Tensor, v: Tensor, first: Tensor, second: Tensor, diagonal: Tensor, control: Tensor
) -> Tensor:
    mixing = LagMixing(first, second, diagonal, control)
    return lag_mix(q, k, v, [mixing, mixing], mixing, Layout(True, True, T)).permute(1, 2, 0, 3)


def free_energy(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    return torch.cat(free_energy_read(q, k, v, beta, causal=True), -1)


def projected(x: Tensor, w: Tensor, s: Tensor, p: Tensor) -> Tensor:
    return torch.cat(modulated_projection(x, w, (4, 3), s, p), -1)


# each with its inputs and what one of them touches: the row of its token, the tokens from there on, or those of all
# sequences
KERNELS: dict[str, tuple[Form, str, tuple[Tensor, ...]]] = {
    "attention": (
        lambda q, k, v: softmax_read(q, k, v, True),
        "row on on",
        (normal(B, T, H, 4), normal(B, T, H, 4), normal(B, T, H, 6)),
    ),
    "free energy": (
        free_energy,
        "row on on all",
        (normal(B, T, H, 4), normal(B, T, H, 4), normal(B, T, H, 6), 1 + normal(H, 6).abs()),
    ),
    "linear": (
        decayed_sums,
        "row on on on",
        (normal(B, T, H, 4), normal(B, T, H, 4), normal(B, T, H, 6), -normal(B, T, H, 1).abs()),
    ),
    "linear, a decay a channel": (
        decayed_sums,
        "row on on on",
        (normal(B, T, H, 4), normal(B, T, H, 4), normal(B, T, H, 6), -normal(B, T, H, 4).abs()),
    ),
    "selective": (
        selective_sums,
        "on all on row on",
        (normal(B, T, 5).abs(), -normal(3, 5).abs(), normal(B, T, 3), normal(B, T, 3), normal(B, T, 1, 5)),
    ),
    "aft": (channelwise_read, "on on", (normal(B, T, 5), normal(B, T, 1, 5))),
    "diagonal": (diagonal_scan, "on on", (torch.sigmoid(normal(B, T, 5)), normal(B, T, 5))),
    "lag mixing": (
        lag_mixed,
        "row on on all all all row",
        (
            *(normal(2, H, B, T, 4), normal(2, H, B, T, 4), normal(H, B, T, 6)),
            *(normal(H, T, 2), normal(H, T, 2), normal(H, T), normal(H, B, T, 2)),
        ),
    ),
    "norm": (lambda x, gain: rms_norm(x, gain, 1e-6), "row all", (normal(B, T, 8), normal(8))),
    "swiglu": (swiglu, "row all all", (normal(B, T, 8), normal(10, 8), normal(8, 5))),
    "rotation": (rotate, "row", (normal(B, T, H, 4),)),
    "gates": (gated_mix, "row row row row", tuple(normal(B, T, H, 4) for _ in range(4))),
    "projection": (projected, "row all row all", (normal(B, T, 8), normal(7, 8), normal(B, T, 2), normal(2, 7))),
}
PLANTED = 20  # the token


@pytest.mark.parametrize(
    ("name", "which"), [(name, at) for name, (*_, inputs) in KERNELS.items() for at in range(len(inputs))]
)
def test_it_comes_out_wherever_it_belongs(name: str, which: int, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nowhere that it doesn't come from PyTorch's form."""
    kernel, touches, inputs = KERNELS[name]
    planted = [x.clone() for x in inputs]
    planted[which][tuple(PLANTED if size == T else 0 for size in planted[which].shape)] = torch.nan
    compiled = rows(kernel(*planted))
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    belongs = torch.zeros(B, T, dtype=torch.bool)
    touched = touches.split()[which]
    belongs[: B if touched == "all" else 1, PLANTED : PLANTED + 1 if touched == "row" else T] = True
    assert bool(compiled[belongs].all())
    assert bool(rows(kernel(*planted))[compiled].all())


def rows(out: Tensor) -> Tensor:
    """Which tokens of which sequences are touched."""
    return out.flatten(2).isnan().any(-1)
