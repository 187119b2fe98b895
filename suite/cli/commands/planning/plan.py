"""`suite plan`: what runs, races and a board will take on GPUs, before anything is started."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from suite.cli import options as opt
from suite.cli.output import print_json
from suite.console import err, marked, say
from suite.errors import UserError

if TYPE_CHECKING:
    from suite.planning.board import Counted, Racing, Wish
    from suite.sweeps.entrant import Entrant
    from suite.sweeps.plan import Left, Wanted

EXAMPLES = """
**Examples**

`suite plan --task fineweb-edu --scale paper --mixer softmax --mixer fem --gpus 8 --gpu h100`

`suite plan --task imagenet1k --scale paper --mixer fem --gpus 64 --gpu a100-80gb --parallel fsdp --mfu 0.3 --json`

`suite plan --check`
"""


def plan(
    context: typer.Context,
    task: opt.Task = None,
    mixer: opt.RaceMixers = None,
    scale: opt.RaceScale = "paper",
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs that share each run's batch.")] = 1,
    gpu: Annotated[str, typer.Option("--gpu", help="Kind of GPU; a wrong name lists them all.")] = "h100",
    parallel: Annotated[
        Literal["ddp", "fsdp"],
        typer.Option("--parallel", help="ddp: a whole copy on each GPU; fsdp: a part of every tensor."),
    ] = "ddp",
    mfu: Annotated[
        float | None,
        typer.Option(
            "--mfu",
            help="Fraction of the GPU's peak that softmax reaches alone on one GPU (model FLOPs utilisation).",
            show_default="0.35, an assumption",
        ),
    ] = None,
    seeds: opt.RaceSeeds = "8",
    lrs: opt.RaceRates = 3,
    hybrid: opt.Hybrid = None,
    set_: opt.Set = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Measure small runs on this machine's processor and compare them with predictions (2 min)."
        ),
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Predicts time, memory per GPU and GPU hours of one run, of a race and of a board. Needs no data and no GPU.

    Work and memory are counted on the model itself; a GPU's speed is its published peak times an assumed utilisation.
    """
    if as_json and markdown:
        raise UserError("--json and --markdown are two forms of one answer; give one of them")
    if check:
        _refuse_others(context)
        _check(markdown=markdown, as_json=as_json)
        return
    from suite.cli.commands.planning.tables import as_document, print_plan
    from suite.sweeps.plan import Wanted, parse_seeds

    if not task or not mixer:
        missing = "--task NAME (suite list tasks)" if not task else "--mixer NAME (suite list mixers)"
        raise UserError(f"a plan needs a task and mixers; give {missing}")
    wish = _wish(gpu, gpus, parallel, mfu)
    wanted = Wanted((task,), tuple(mixer), scale, tuple(set_ or ()), parse_seeds(seeds), lrs, hybrid)
    counted, left = count_board(wanted)
    if as_json:
        print_json(as_document(counted, wish, left))
        return
    for each in left:
        err.print(marked("[yellow]left out:[/] {}: {}", each.mixer, each.reason), soft_wrap=True)
    print_plan(counted, wish, markdown=markdown)


def _wish(gpu: str, gpus: int, parallel: Literal["ddp", "fsdp"], mfu: float | None) -> Wish:
    from suite.planning.board import Wish
    from suite.planning.gpus import gpu_named
    from suite.planning.rates import BEST_PRODUCTS, MFU

    if not 1 <= gpus <= 2**20:
        raise UserError(f"--gpus {gpus}: 1 to {2**20} are allowed")
    if mfu is not None and not 0.01 <= mfu <= BEST_PRODUCTS:
        raise UserError(f"--mfu {mfu:g}: 0.01 to {BEST_PRODUCTS} are allowed; published runs reached 0.21 to 0.46")
    return Wish(gpu_named(gpu), gpus, parallel, MFU if mfu is None else mfu)


def count_board(wanted: Wanted) -> tuple[list[Counted], list[Left]]:
    """Counts the rows of a board: the mixers, softmax where it is not among them, and its parameter curve.

    Args:
        wanted: the races, as for `suite sweep`.

    Returns:
        The rows, those of the curve last, and the mixers that cannot be raced.

    Raises:
        UserError: an option is invalid, or no mixer fits the task.
    """
    from suite.planning.board import Counter
    from suite.sweeps.plan import entrants

    found, left = entrants(wanted)
    counter = Counter()
    rows = [_racing(wanted, each) for each in found]
    more, unsized = _reference_rows(wanted, has_softmax=any(row.config.mixer == "softmax" for row in rows))
    rows, left = [*rows, *more], [*left, *unsized]
    counted = []
    for row in rows:
        say(f"counting {row.label}")
        counted.append(counter.count(row))
    return counted, left


def _racing(wanted: Wanted, each: Entrant, *, curve: bool = False) -> Racing:
    import tasks
    from suite.planning.board import Racing

    task = tasks.get(each.base.task)(each.base.data)
    return Racing(each.label, each.base, each.race.runs, task, len(each.race.seeds), curve)


def _reference_rows(wanted: Wanted, *, has_softmax: bool) -> tuple[list[Racing], list[Left]]:
    """What a board needs besides its mixers: softmax, and softmax at three other sizes, of which a small shape may not
    have all.
    """
    from suite.statistics.exchange import SIZES
    from suite.sweeps.plan import Left, entrants

    shared = tuple(each for each in wanted.sets if not each.startswith("mixer."))
    plain = replace(wanted, mixers=("softmax",), hybrid=None, sets=shared)
    rows, left = [] if has_softmax else [_racing(wanted, each) for each in entrants(plain)[0]], list[Left]()
    for factor in (size for size in SIZES if size != 1.0):
        sized = f"model.width_factor={factor:g}"
        try:
            found, missing = entrants(replace(plain, sets=(*shared, sized)))
        except UserError as problem:  # of a single row; several rows have their reasons in `missing`
            left.append(Left(wanted.tasks[0], f"softmax {sized}", str(problem)))
            continue
        left += missing
        rows += [_racing(wanted, replace(each, label=f"{each.label} {sized}"), curve=True) for each in found]
    return rows, left


def _refuse_others(context: typer.Context) -> None:
    """Raises UserError for an option that --check would not follow."""
    given = [  # by the name of the source: typer has a click of its own
        option.opts[0]
        for option in context.command.params
        if option.name not in ("check", "markdown", "as_json")
        and getattr(context.get_parameter_source(option.name or ""), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise UserError(
            f"--check measures small runs of its own on this processor and takes no {', '.join(given)}; "
            "allowed with it: --markdown, --json"
        )


def _check(*, markdown: bool, as_json: bool) -> None:
    from suite.cli.commands.planning.check_table import check_document, print_check
    from suite.planning.check import check

    found = check(say)
    print_json(check_document(found)) if as_json else print_check(found, markdown=markdown)
