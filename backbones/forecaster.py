"""The series backbone: independent channels, patches, reversible instance norm, horizon head (arXiv 2211.14730)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.base import Trunk, TrunkConfig
from backbones.series_outputs import OUTPUTS, HeadKind, in_units


def patch_count(look_back: int, patch: int, stride: int) -> int:
    """Patches of a window whose last value is repeated `stride` times, so that the newest values are in two patches."""
    return (look_back - patch) // stride + 2


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm of each channel of `[R, T, D]` over all tokens of all series, as published for PatchTST.

    A norm per token would remove the token's magnitude, in which the head's forecasts are linear.
    """

    def forward(self, x_RTD: Tensor) -> Tensor:
        return super().forward(x_RTD.flatten(0, 1)).view_as(x_RTD)


class Forecaster(nn.Module):
    """Windows `[B, N, C]` to forecasts `[B, horizon, C]`. Every channel is a separate sequence; all share the weights.

    `head_scale` is the scale of the head's initial weights: at 1 the initial forecasts scatter about the window's mean
    as the window does, at 0 they are the mean. At long horizons that noise takes long to unlearn. Other kinds of heads
    give several values per step, `[B, horizon, C, K]`: see `series_outputs`.
    """

    constant: Tensor

    def __init__(
        self,
        trunk: TrunkConfig,
        look_back: int,
        horizon: int,
        channels: int,
        patch: int,
        stride: int,
        kind: HeadKind = "point",
        head_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.head_scale = head_scale
        self.kind = kind
        tokens = patch_count(look_back, patch, stride)
        if trunk.length != tokens:
            window = f"look-back {look_back} at patch {patch}, stride {stride}"
            raise ValueError(f"{window} gives {tokens} tokens, the trunk expects {trunk.length}")
        self.patch, self.stride = patch, stride
        self.embedding = nn.Linear(patch, trunk.dim)
        # the affine part of reversible instance norm (Kim et al., ICLR 2022): one gain and one bias per channel
        self.embedding_gain, self.embedding_bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.trunk = Trunk(trunk, TokenBatchNorm(trunk.dim))
        self.head = nn.Linear(tokens * trunk.dim, horizon * OUTPUTS[kind])
        if self.trunk.takes_constant_row:
            self.register_buffer("constant", torch.zeros(look_back))

    def set_constant(self, window_N: Tensor) -> None:
        """Sets the constant window (one channel) of the layers that need one; it is saved in the state dict."""
        self.constant.copy_((window_N - window_N.mean()) / (window_N.std(correction=0) + 1e-5))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.embedding_gain)
        nn.init.zeros_(self.embedding_bias)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(self.patch))
        nn.init.normal_(self.head.weight, std=self.head_scale / math.sqrt(self.head.in_features))
        nn.init.zeros_(self.embedding.bias)
        nn.init.zeros_(self.head.bias)
        self.trunk.reset_parameters()

    def forward(self, x_BNC: Tensor) -> Tensor:
        mean_B1C = x_BNC.mean(dim=1, keepdim=True)
        std_B1C = (x_BNC.var(dim=1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        x_BNC = (x_BNC - mean_B1C) / std_B1C * self.embedding_gain + self.embedding_bias
        batch, _, channels = x_BNC.shape
        constant_TD = self._patches(self.constant.unsqueeze(0))[0] if self.trunk.takes_constant_row else None
        hidden_RTD = self.trunk(self._patches(x_BNC.transpose(1, 2).flatten(0, 1)), constant_TD)  # R = B·C sequences
        y_RM = self.head(hidden_RTD.flatten(1))  # no dropout here, as published
        y_BCHK = y_RM.view(batch, channels, -1, OUTPUTS[self.kind])
        gain_B1C = std_B1C / (self.embedding_gain + 1e-10)
        return in_units(self.kind, y_BCHK, gain_B1C, mean_B1C - self.embedding_bias * gain_B1C)

    def _patches(self, x_RN: Tensor) -> Tensor:
        x_RN = F.pad(x_RN, (0, self.stride), mode="replicate")
        return self.embedding(x_RN.unfold(1, self.patch, self.stride))
