"""`suite check`: the mixer contract."""

from __future__ import annotations

from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json


def check(
    mixer: Annotated[str, typer.Argument(metavar="MIXER", help="A mixer's name, or path/to/file.py:Class.")],
    slow: Annotated[
        bool, typer.Option("--slow", help="Include the slow checks (gradcheck of every parameter, torch.compile).")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Runs the mixer contract on a registered mixer or your own file, and lists each check's result. Exit code 1 if a
    check fails.

    `suite check examples/moving_average.py:MovingAverage`
    """
    from backbones.contract import run as contract

    results = contract.run_checks(mixer, slow=slow)
    if as_json:
        print_json(contract.as_json(mixer, results))
    else:
        out.print(contract.render(mixer, results))
    raise typer.Exit(1 if any(result.status == "failed" for result in results) else 0)
