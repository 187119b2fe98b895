"""What holds of a mixer, and how fast things are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.commands.output import emit


def check(
    mixer: Annotated[str, typer.Argument(metavar="MIXER", help="A mixer's name, or path/to/file.py:Class.")],
    slow: Annotated[
        bool, typer.Option("--slow", help="The expensive checks too (gradcheck of every parameter, torch.compile).")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Runs the mixer contract on a mixer, your own file included, and shows what holds. Exit code 1 when something does
    not.

    `suite check examples/moving_average.py:MovingAverage`
    """
    from backbones.contract import run as contract
    from suite.cli.report.tables import out

    results = contract.run_checks(mixer, slow=slow)
    if as_json:
        emit(contract.as_json(mixer, results))
    else:
        out.print(contract.render(mixer, results))
    raise typer.Exit(1 if any(result.status == "failed" for result in results) else 0)


def bench(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="kernels, mixers, train or decode.")],
    mixer: Annotated[
        list[str] | None, typer.Option("--mixer", help="Only this mixer (mixers, train, decode); repeat for more.")
    ] = None,
    lengths: Annotated[
        str | None, typer.Option("--lengths", help="Tokens, with commas (kernels, mixers).", show_default=False)
    ] = None,
    against: Annotated[list[str] | None, typer.Option("--against", help="Only this peer; repeat for more.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Interleaved rounds; medians are over them.")] = 9,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="More than 1 takes wall time: keep the machine quiet.")
    ] = 1,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draws to a .png, .svg or .pdf file.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Keeps JSON, plot and a page of all figures in a folder.", show_default=False),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Times kernels, mixer layers, training steps or decoding beside their peers, in turns. Exit code 1 when a demand
    is not met.

    `suite bench kernels --lengths 256,1024 --plot kernels.png`
    """
    from suite.bench import report as bench_report
    from suite.bench import results_folder
    from suite.cli.report.tables import out

    if folder is not None:
        results_folder.open_for_writing(folder)
    document = bench_report.run(kind, mixer or [], lengths, against or [], rounds, threads, plot)
    if folder is not None:
        results_folder.put(document, folder)
    emit(document) if as_json else bench_report.show(document, out)
    raise typer.Exit(1 if bench_report.missed(document) else 0)
