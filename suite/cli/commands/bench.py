"""`suite bench`: speed and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json


def bench(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="kernels, mixers, train or decode.")],
    mixer: Annotated[
        list[str] | None, typer.Option("--mixer", help="Only this mixer (mixers, train, decode); repeatable.")
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option("--lengths", help="Lengths in tokens, separated by commas (kernels, mixers).", show_default=False),
    ] = None,
    against: Annotated[list[str] | None, typer.Option("--against", help="Only this competitor; repeatable.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Number of interleaved rounds.")] = 9,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="More than 1 measures wall time: keep the machine idle.")
    ] = 1,
    device: Annotated[
        str, typer.Option("--device", help="kernels: cuda compares the kernels on a GPU with SDPA and a copy.")
    ] = "cpu",
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a plot: a .png, .svg or .pdf file.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Write JSON, plot and a page of all results to a folder.", show_default=False),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Times kernels, mixer layers, training steps or decoding against their competitors, in interleaved rounds. Exit
    code 1 if a required ratio is not met.

    `suite bench kernels --lengths 256,1024 --plot kernels.png`
    """
    from suite.bench import report, results_folder

    if folder is not None:
        results_folder.open_for_writing(folder)
    document = report.run(kind, mixer or [], lengths, against or [], rounds, threads, plot, device)
    if folder is not None:
        results_folder.add(document, folder)
    print_json(document) if as_json else report.show(document, out)
    raise typer.Exit(1 if report.unmet(document) else 0)
