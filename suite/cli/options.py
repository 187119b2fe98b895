"""The options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Task = Annotated[str | None, typer.Option("--task", help="Task, see `suite list tasks`.", show_default=False)]
Mixer = Annotated[
    str | None,
    typer.Option("--mixer", help="Mixer, see `suite list mixers`; or path/to/file.py:Class.", show_default=False),
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", help="board (≤ 30 s), quick (2 min), small (15 min), paper.", show_default="quick"),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed of weights, batches and augmentation.", show_default="0")
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Optimiser steps; the scale sets them otherwise.", show_default=False),
]
Horizon = Annotated[int | None, typer.Option("--horizon", help="Forecasting: values to predict.", show_default="96")]
Track = Annotated[
    str | None, typer.Option("--track", help="Forecasting: fixed-336, fixed-96 or searched.", show_default=False)
]
Hybrid = Annotated[
    str | None,
    typer.Option(
        "--hybrid",
        help="Layers that keep softmax: even, odd, top, bottom, middle, quarter, first, last, bilateral, or 2,4.",
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value, any option of data, model, mixer, train; repeatable.", show_default=False),
]
DataScale = Annotated[
    str | None, typer.Option("--scale", help="With the data options of a scale's recipe.", show_default=False)
]
DataSet = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, an option of the data; repeatable.", show_default=False)
]
Resume = Annotated[
    str | None, typer.Option("--resume", help="Go on with a run that stopped: its id or folder.", show_default=False)
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.", show_default="the first free from 5000"),
]
Recipe = Annotated[
    Path | None, typer.Option("--recipe", help="TOML file with [data] [model] [mixer] [train].", show_default=False)
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder with the data, for tasks that ship none.", show_default=False)
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")]
Unmatched = Annotated[
    bool, typer.Option("--unmatched", help="Run although the budget refuses; such a run never ranks.")
]
Skip = Annotated[
    bool, typer.Option("--skip-variant-layers", help="Hybrids: test once more without the layers that are not softmax.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
