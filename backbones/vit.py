"""The image backbone: patches, trunk, mean pooling, linear head. No class token: scans could not use it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.base import Trunk, TrunkConfig


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches; an image whose side is not a multiple of the patch is padded at bottom and right."""
    return math.ceil(height / patch), math.ceil(width / patch)


class VisionTransformer(nn.Module):
    """Images `[B, C, height, width]` to logits `[B, classes]`, any image and patch size (ViT, arXiv 2010.11929)."""

    constant: Tensor

    def __init__(self, trunk: TrunkConfig, channels: int, height: int, width: int, patch: int, classes: int) -> None:
        super().__init__()
        rows, columns = patch_grid(height, width, patch)
        if trunk.length != rows * columns:
            raise ValueError(
                f"{height}x{width} at patch {patch} gives {rows * columns} tokens, the trunk expects {trunk.length}"
            )
        self.padding = (0, columns * patch - width, 0, rows * patch - height)
        self.embedding = nn.Conv2d(channels, trunk.dim, patch, stride=patch)
        self.trunk = Trunk(trunk)
        self.head = nn.Linear(trunk.dim, classes)
        if self.trunk.takes_constant_row:
            self.register_buffer("constant", torch.zeros(channels, height, width))

    def set_constant(self, image_CHW: Tensor) -> None:
        """Sets the constant image of the layers that need one; it is saved in the state dict."""
        self.constant.copy_(image_CHW)

    def reset_parameters(self) -> None:
        fan_in = self.embedding.weight[0].numel()
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(fan_in))
        nn.init.normal_(self.head.weight, std=0.02)
        for bias in (self.embedding.bias, self.head.bias):
            if bias is not None:
                nn.init.zeros_(bias)
        self.trunk.reset_parameters()

    def forward(self, image_BCHW: Tensor) -> Tensor:
        constant_TD = self._patches(self.constant.unsqueeze(0))[0] if self.trunk.takes_constant_row else None
        return self.head(self.trunk(self._patches(image_BCHW), constant_TD).mean(dim=1))

    def _patches(self, image_BCHW: Tensor) -> Tensor:
        if any(self.padding):
            image_BCHW = F.pad(image_BCHW, self.padding)
        # Contiguous once: the residual stream keeps the layout, and every norm and sum after it would copy.
        return self.embedding(image_BCHW).flatten(2).transpose(1, 2).contiguous()
