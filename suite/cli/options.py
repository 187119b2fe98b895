"""The options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ParallelName = Literal["ddp", "fsdp"]
Task = Annotated[str | None, typer.Option("--task", help="Task; see `suite list tasks`.", show_default=False)]
Mixer = Annotated[
    str | None,
    typer.Option(
        "--mixer", help="Mixer; see `suite list mixers`. Or path/to/file.py:Class for your own.", show_default=False
    ),
]
_SIZES = "Size of the run: board (half a minute), quick (2 min), small (15 min) or paper."
Scale = Annotated[str | None, typer.Option("--scale", help=_SIZES, show_default="quick")]
RaceScale = Annotated[str, typer.Option("--scale", help=_SIZES)]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed of initial weights, batches and augmentation.", show_default="0")
]
RaceMixers = Annotated[list[str] | None, typer.Option("--mixer", help="Mixer; repeatable.", show_default=False)]
RaceSeeds = Annotated[str, typer.Option("--seeds", help="Seeds of each row: 8, 0-7 or 0,1,2.")]
RaceRates = Annotated[
    int, typer.Option("--lrs", min=1, max=15, help="Learning rates, a factor of 3 apart around the recipe's.")
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Number of optimiser steps; by default the scale's.", show_default=False),
]
Horizon = Annotated[
    int | None, typer.Option("--horizon", help="Forecasting: number of values to predict.", show_default="96")
]
Track = Annotated[
    str | None,
    typer.Option("--track", help="Forecasting: look-back window, fixed-336, fixed-96 or searched.", show_default=False),
]
Hybrid = Annotated[
    str | None,
    typer.Option(
        "--hybrid",
        help="Layers that stay softmax: even, odd, top, bottom, middle, quarter, first, last, bilateral, or 2,4.",
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value: any option of data, model, mixer or train; repeatable.", show_default=False),
]
DataScale = Annotated[
    str | None, typer.Option("--scale", help="Use the data options of this scale's recipe.", show_default=False)
]
DataSet = Annotated[
    list[str] | None, typer.Option("--set", help="key=value: an option of the data; repeatable.", show_default=False)
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run: its id, any unique part of it, its folder, or latest.")]
LanguageRun = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run of a language model: its id, any unique part of it, folder, or latest."),
]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        help="Resume a run that stopped: its id, any unique part of it, its folder, or latest. auto: the newest one "
        "that stopped (with --task and the other options, of that config), from scratch where it has no checkpoint.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Run although another process is running the same config.")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.", show_default="the first free from 5000"),
]
Recipe = Annotated[
    Path | None, typer.Option("--recipe", help="TOML file with [data] [model] [mixer] [train].", show_default=False)
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder with the data, for tasks that include none.", show_default=False),
]
VerifyData = Annotated[
    bool, typer.Option("--verify-data", help="Hash all cached data again, not only what changed or is small.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=256,
        help="Threads that compute: of PyTorch and the compiled kernels.",
        show_default="one a processor",
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        "--devices",
        min=1,
        max=1024,
        help="Processes of this machine that train the run together: one per GPU, or on the CPU. The batch is divided "
        "among them, and the result is the same. Several machines: torchrun … -m suite run …",
        show_default="1",
    ),
]
Parallel = Annotated[
    ParallelName | None,
    typer.Option(
        "--parallel",
        help="What each of several processes holds: ddp: the whole model; fsdp: a part of every tensor (FSDP2).",
        show_default="ddp",
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=256, help="Runs at once, each in its own process.")]
JobThreads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=256, help="Threads of each job.", show_default="the processors / jobs"),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        max=256,
        help="Processes that load data.",
        show_default="one a processor for data in files, else none",
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Compute with deterministic algorithms alone: the same command gives the same bits on one machine. An "
        "operation that has none ends the run.",
    ),
]
Unmatched = Annotated[
    bool, typer.Option("--unmatched", help="Run even if the mixer exceeds the budget; such a run is never ranked.")
]
Skip = Annotated[
    bool,
    typer.Option(
        "--skip-variant-layers", help="Hybrids: evaluate on test once more without the layers that are not softmax."
    ),
]
Records = Annotated[
    Path | None,
    typer.Option(
        "--records",
        help="Folder of records to read instead of the runs here.",
        exists=True,
        file_okay=False,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
