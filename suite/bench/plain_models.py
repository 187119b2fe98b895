"""Plain PyTorch models of a task: nanoGPT-like for text, timm's vision transformer, PatchTST-like for series.

Each has depth, width, heads and tokens of ours and as many parameters: its feed-forward width is chosen for that. They
are what a good PyTorch program contains (fused attention, one projection to queries, keys and values), with none of our
kernels.

Shape letters: B sequences, T tokens, D model width, F feed-forward width, H heads, C channels, N look-back, R = B·C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.config.run_config import ModelConfig
from suite.models.inputs import adapter
from tasks.base import ImageInput, InputSpec, SeriesInput, TextInput

#: What reports call the models, by kind of input.
TITLES: Mapping[str, str] = {"text": "nanoGPT-like", "image": "timm ViT", "series": "PatchTST-like"}
#: Largest difference in parameters between the compared models, relative to ours.
TOLERANCE = 0.01


class PlainBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + W_down GELU(W_up norm(x))`."""

    def __init__(self, model: ModelConfig, width: int, causal: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.causal = model.heads, causal
        self.norm_attention, self.norm_ffn = (nn.LayerNorm(model.dim, bias=bias) for _ in range(2))
        self.qkv = nn.Linear(model.dim, 3 * model.dim, bias=bias)
        self.out = nn.Linear(model.dim, model.dim, bias=bias)
        self.up, self.down = nn.Linear(model.dim, width, bias=bias), nn.Linear(width, model.dim, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_attention(x_BTD)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read_BHTd = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x_BTD = x_BTD + self.out(read_BHTd.transpose(1, 2).flatten(2))
        return x_BTD + self.down(F.gelu(self.up(self.norm_ffn(x_BTD))))


class PlainDecoder(nn.Module):
    """Token ids `[B, T]` to logits `[B, T, vocab]`; without biases, positions learned, head and embedding separate."""

    def __init__(self, spec: TextInput, model: ModelConfig, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(spec.vocab, model.dim)
        self.positions = nn.Embedding(spec.length, model.dim)
        self.blocks = nn.Sequential(*(PlainBlock(model, width, causal=True, bias=False) for _ in range(model.depth)))
        self.norm = nn.LayerNorm(model.dim, bias=False)
        self.head = nn.Linear(model.dim, spec.vocab, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        logits: Tensor = self.head(self.norm(self.blocks(self.embedding(ids_BT) + self.positions(places_T))))
        return logits


class PlainForecaster(nn.Module):
    """Windows `[B, N, C]` to forecasts `[B, horizon, C]`: reversible instance norm, patches, every channel a separate
    sequence, a linear head on all tokens (PatchTST, arXiv 2211.14730).
    """

    def __init__(self, spec: SeriesInput, model: ModelConfig, width: int) -> None:
        super().__init__()
        if spec.head != "point":
            raise ValueError(f"a plain forecaster gives points, the task wants {spec.head}")
        self.patch, self.stride = spec.patch, spec.stride
        tokens = adapter(spec).length
        self.gain, self.bias = nn.Parameter(torch.ones(spec.channels)), nn.Parameter(torch.zeros(spec.channels))
        self.embedding = nn.Linear(spec.patch, model.dim)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, model.dim))
        self.blocks = nn.Sequential(*(PlainBlock(model, width, causal=False, bias=True) for _ in range(model.depth)))
        self.norm = nn.LayerNorm(model.dim)
        self.head = nn.Linear(tokens * model.dim, spec.horizon)

    def forward(self, x_BNC: Tensor) -> Tensor:
        mean_B1C, std_B1C = x_BNC.mean(1, keepdim=True), (x_BNC.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        x_BNC = (x_BNC - mean_B1C) / std_B1C * self.gain + self.bias
        x_RN = F.pad(x_BNC.transpose(1, 2).flatten(0, 1), (0, self.stride), mode="replicate")
        hidden_RTD = self.embedding(x_RN.unfold(1, self.patch, self.stride)) + self.positions
        y_RM = self.head(self.norm(self.blocks(hidden_RTD)).flatten(1))
        y_BMC = y_RM.unflatten(0, (x_BNC.shape[0], -1)).transpose(1, 2)
        return (y_BMC - self.bias) / (self.gain + 1e-10) * std_B1C + mean_B1C


def vision_transformer(spec: ImageInput, model: ModelConfig, width: int) -> nn.Module:
    """timm's vision transformer with mean pooling, so that it has our number of tokens."""
    from timm.models.vision_transformer import VisionTransformer

    made: nn.Module = VisionTransformer(
        img_size=(spec.height, spec.width),
        patch_size=spec.patch,
        in_chans=spec.channels,
        num_classes=spec.classes,
        embed_dim=model.dim,
        depth=model.depth,
        num_heads=model.heads,
        mlp_ratio=(width + 0.5) / model.dim,  # it rounds the product down
        class_token=False,
        global_pool="avg",
    )
    return made


def plain_model(spec: InputSpec, model: ModelConfig, parameters: int) -> nn.Module:
    """The plain model of a kind of input.

    Args:
        spec: what the task's models read and return.
        model: width, depth and heads.
        parameters: of the model that it is compared with.

    Returns:
        A model with PyTorch's initial weights.

    Raises:
        ValueError: no feed-forward width gives the number of parameters within `TOLERANCE`.
    """
    build: Callable[[int], nn.Module]
    if isinstance(spec, TextInput):
        build = lambda width: PlainDecoder(spec, model, width)  # noqa: E731
    elif isinstance(spec, ImageInput):
        build = lambda width: vision_transformer(spec, model, width)  # noqa: E731
    else:
        build = lambda width: PlainForecaster(spec, model, width)  # noqa: E731
    with torch.device("meta"):
        one, two = (count(build(width)) for width in (1, 2))
    made = build(max(1, 1 + round((parameters - one) / (two - one))))
    require_equal(parameters, count(made), TITLES[spec.kind])
    return made


def count(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def require_equal(ours: int, theirs: int, name: str) -> None:
    """Raises ValueError unless two models have equal parameters within `TOLERANCE`.

    Args:
        ours: parameters of our model.
        theirs: parameters of the compared one.
        name: of the compared one.
    """
    if abs(theirs - ours) > TOLERANCE * ours:
        raise ValueError(
            f"{name}: {theirs:,} parameters, ours has {ours:,}; they may differ by {100 * TOLERANCE:.0f} %"
        )
