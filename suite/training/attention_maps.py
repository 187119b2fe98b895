"""The attention of the selected model: indicators per layer and head, and the maps as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Block
from backbones.indicators import ShowsMap, indicators
from backbones.mixers.base import Context
from suite.models.inputs import Backbone
from suite.training.evaluate import eval_mode
from tasks.base import Task

EXAMPLES = 4
PICTURE, FIGURES = "attention.png", "attention.json"


@torch.no_grad()
def attention_maps(model: Backbone, task: Task, device: torch.device) -> dict[int, Tensor]:
    """Maps `[B, H, T, T]` of a few validation examples by layer, counted from 1, where the mixer has any."""
    seen: dict[int, Tensor] = {}
    handles = []
    for number, block in enumerate(model.trunk.blocks, 1):
        assert isinstance(block, Block)
        if isinstance(block.mixer, ShowsMap):
            handles.append(block.mixer.register_forward_pre_hook(_keep_map(seen, number)))
    try:
        with eval_mode(model):
            batch = next(iter(task.eval_batches("valid", EXAMPLES))).to(device)
            model(batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _keep_map(seen: dict[int, Tensor], number: int) -> Any:
    def hook(mixer: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(mixer, ShowsMap)
        map_BHTT = mixer.attention_map(*arguments).float().cpu()
        constant_row = any(isinstance(given, Context) and given.constant_row for given in arguments)
        seen[number] = map_BHTT[:-1] if constant_row else map_BHTT  # the last row is the constant sequence

    return hook


def write_indicators(maps: dict[int, Tensor], path: Path) -> Path:
    """Writes the indicators of each layer and head as JSON, by names such as `attention/layer1/entropy/head0`."""
    figures = {
        f"attention/layer{n}/{name}": value
        for n, map_BHTT in maps.items()
        for name, value in indicators(map_BHTT).figures()
    }
    path.write_text(json.dumps(figures, indent=1), "utf-8")
    return path


def draw(maps: dict[int, Tensor], path: Path) -> Path:
    """A picture with one row per layer and one column per head: means over examples, dark for large weights."""
    from matplotlib.figure import Figure

    heads = max(map_BHTT.shape[1] for map_BHTT in maps.values())
    figure = Figure(figsize=(2.2 * heads + 0.6, 2.2 * len(maps) + 0.6), layout="constrained")
    axes = figure.subplots(len(maps), heads, squeeze=False)
    for row, (number, map_BHTT) in zip(axes, maps.items(), strict=True):
        mean_HTT = map_BHTT.mean(0)
        for head, axis in enumerate(row):
            axis.set_axis_off()
            if head < len(mean_HTT):
                # the square root makes small weights visible next to large ones
                axis.imshow(
                    mean_HTT[head].clamp_min(0).sqrt().numpy(), cmap="magma_r", vmin=0.0, interpolation="nearest"
                )
                axis.set_title(f"layer {number}, head {head}", fontsize=8)
    figure.suptitle("attention (square root of the mean weight): rows are queries, columns keys", fontsize=9)
    figure.savefig(path, dpi=110)
    return path
