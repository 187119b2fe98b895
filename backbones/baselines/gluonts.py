"""DLinear and PatchTST of GluonTS (arXiv 2205.13504, 2211.14730) as series models, without its Lightning training.

Each channel is a separate series, as everywhere here. Inputs are scaled by the window's mean and deviation or, as by
default in GluonTS, by its mean absolute value. Importing `gluonts.torch` takes seconds and needs Lightning.

Shape letters: B batch, C channels, N look-back, H horizon, K values per step, R = B·C series.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from backbones.baselines.base import PREFIX, Baseline, BaselineError, BaselineOptions, ReferenceShape, SeriesSizes
from backbones.series_outputs import OUTPUTS, SMALLEST_SCALE, HeadKind

Scaling = Literal["std", "mean", "none"]


class GluonTSModel(nn.Module):
    """Windows `[B, N, C]` to forecasts `[B, H, C]` or `[B, H, C, K]`, through one of GluonTS's univariate networks."""

    def __init__(self, network: nn.Module, kind: HeadKind) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, x_BNC: Tensor) -> Tensor:
        x_RN = x_BNC.transpose(1, 2).flatten(0, 1)
        arguments, loc_R1, scale_R1 = self.network(x_RN, torch.ones_like(x_RN))
        y_RHK = self._in_units(arguments, loc_R1.unsqueeze(-1), scale_R1.unsqueeze(-1))
        y_BHCK = y_RHK.unflatten(0, (len(x_BNC), -1)).transpose(1, 2)
        return y_BHCK.squeeze(-1) if self.kind == "point" else y_BHCK

    def _in_units(self, arguments: tuple[Tensor, ...], loc_R11: Tensor, scale_R11: Tensor) -> Tensor:
        if self.kind != "student-t":
            return arguments[0] * scale_R11 + loc_R11
        # GluonTS keeps degrees above 2 and scales above 0
        degrees, location, scale = (argument.unsqueeze(-1) for argument in arguments)
        return torch.cat(
            [location * scale_R11 + loc_R11, (scale * scale_R11).clamp_min(SMALLEST_SCALE), degrees], dim=-1
        )


def dlinear(
    look_back: int, horizon: int, kind: HeadKind, *, hidden: int, kernel: int, scaling: Scaling
) -> GluonTSModel:
    """A linear map of the window's moving average plus one of the remainder. Raises ImportError without Lightning."""
    with _quiet():
        import gluonts.torch  # noqa: F401  # its submodules cannot be imported first
        from gluonts.torch.model.d_linear.module import DLinearModel

    network = DLinearModel(
        prediction_length=horizon,
        context_length=look_back,
        hidden_dimension=hidden,
        distr_output=_output(kind),
        kernel_size=kernel,
        scaling=_named(scaling),
    )
    return GluonTSModel(network, kind)


def patchtst(
    look_back: int,
    horizon: int,
    kind: HeadKind,
    *,
    patch: int,
    stride: int,
    dim: int,
    heads: int,
    depth: int,
    ffn_width: int,
    dropout: float,
    scaling: Scaling,
) -> GluonTSModel:
    """A post-norm encoder over patches with fixed positions. Raises ImportError without Lightning."""
    with _quiet():
        import gluonts.torch  # noqa: F401
        from gluonts.torch.model.patch_tst.module import PatchTSTModel

        network = PatchTSTModel(
            prediction_length=horizon,
            context_length=look_back,
            patch_len=patch,
            stride=stride,
            padding_patch="end",
            d_model=dim,
            nhead=heads,
            dim_feedforward=ffn_width,
            num_feat_dynamic_real=0,
            dropout=dropout,
            activation="relu",
            norm_first=False,
            num_encoder_layers=depth,
            scaling=_named(scaling),
            distr_output=_output(kind),
        )
    return GluonTSModel(network, kind)


def _named(scaling: Scaling) -> str | None:
    return None if scaling == "none" else scaling


def _output(kind: HeadKind) -> Any:
    """The output layer of GluonTS; a point is its quantile output with one level, trained on squared errors."""
    from gluonts.torch.distributions import QuantileOutput, StudentTOutput

    if kind == "student-t":
        return StudentTOutput()
    levels = OUTPUTS[kind]
    return QuantileOutput([level / (levels + 1) for level in range(1, levels + 1)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the advice of GluonTS on JSON libraries, and torch's on nested tensors for an odd number of heads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `json`-module", category=UserWarning)
        warnings.filterwarnings("ignore", message="enable_nested_tensor is True", category=UserWarning)
        yield


class GluonTSOptions(BaselineOptions):
    scaling: Scaling = Field(
        default="std",
        description="of each window: by mean and deviation (std), mean absolute value (mean, GluonTS's "
        "default), or none",
    )


class DLinearOptions(GluonTSOptions):
    hidden: int = Field(default=20, ge=1, description="values per step before the output layer (GluonTS's default: 20)")
    kernel: int = Field(default=25, ge=1, description="steps of the moving average, an odd number")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"the moving average needs an odd number of steps; take {kernel + 1}")
        return kernel


def _dlinear(sizes: SeriesSizes, options: DLinearOptions, shape: ReferenceShape) -> nn.Module:
    o = options
    with _needs_lightning("dlinear"):
        return dlinear(sizes.look_back, sizes.horizon, sizes.head, hidden=o.hidden, kernel=o.kernel, scaling=o.scaling)


def _patchtst(sizes: SeriesSizes, options: GluonTSOptions, shape: ReferenceShape) -> nn.Module:
    """With the width, depth, heads, feed-forward width and dropout of the softmax reference."""
    with _needs_lightning("patchtst"):
        return patchtst(
            sizes.look_back,
            sizes.horizon,
            sizes.head,
            patch=sizes.patch,
            stride=sizes.stride,
            dim=shape.dim,
            heads=shape.heads,
            depth=shape.depth,
            ffn_width=shape.ffn_width,
            dropout=shape.dropout,
            scaling=options.scaling,
        )


@contextmanager
def _needs_lightning(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise BaselineError(
            f"{PREFIX}{name} is GluonTS's and needs Lightning ({reason}): pip install 'mixer-suite[baselines]'"
        ) from None


DLINEAR = Baseline("forecasting", DLinearOptions, _dlinear)
PATCHTST = Baseline("forecasting", GluonTSOptions, _patchtst)
