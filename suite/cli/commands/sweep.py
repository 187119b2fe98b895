"""`suite sweep`: races mixers on tasks, so that each row of a board has a tuned learning rate and equal seeds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from suite.cli import options as opt
from suite.cli.output import print_json
from suite.console import duration, err, marked, say, warn
from suite.errors import UserError

if TYPE_CHECKING:
    from suite.sweeps.entrant import Entrant
    from suite.sweeps.executor import Executor
    from suite.sweeps.plan import Left
    from suite.sweeps.scheduler import Progress

EXAMPLES = """
**Examples**

`suite sweep --task sotu --mixer softmax --mixer fem`

`suite sweep --task mqar --mixer softmax --mixer gla --seeds 0-3 --set lr=1e-3,3e-3 --jobs 2`

`suite sweep --task sotu --mixer softmax --mixer fem --on ray --jobs 2 --threads 2`

`suite sweep --task sotu --mixer softmax --mixer fem --plan plan.txt && xargs -P 4 -d '\\n' -n 1 sh -c < plan.txt`
"""


def sweep(
    task: Annotated[list[str] | None, typer.Option("--task", help="Task; repeatable.", show_default=False)] = None,
    mixer: opt.RaceMixers = None,
    scale: opt.RaceScale = "board",
    seeds: opt.RaceSeeds = "8",
    lrs: opt.RaceRates = 3,
    hybrid: opt.Hybrid = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="key=value, or key=a,b for a row per value; lr=a,b are the rates of the race.",
            show_default=False,
        ),
    ] = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    on: Annotated[
        Literal["local", "ray"],
        typer.Option("--on", help="Where runs are: processes here, or tasks of a Ray cluster (docs/clusters.md)."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="With --on ray: HOST:PORT of a running cluster, or auto.",
            show_default="a cluster of its own here, while the sweep runs",
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-run",
            min=0,
            max=1,
            help="With --on ray: GPUs of each run; 0.5 lets two runs share one.",
            show_default="1 where there are GPUs and --device allows it",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            min=1,
            max=4096,
            help="Runs at once, each in its own process.",
            show_default="1; with --address as many as the cluster holds",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            max=256,
            help="Threads of each job; with --on ray its CPUs.",
            show_default="the processors / jobs; with --address 1",
        ),
    ] = None,
    workers: opt.Workers = None,
    deterministic: opt.Deterministic = False,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Write one command per race to this file and run nothing.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Races mixers: three learning rates on four seeds, the best two on all eight, chosen by validation.

    Runs that have ended are never repeated: the same command continues where it was stopped or killed.
    """
    from suite.sweeps.choice import Options, executor, written
    from suite.sweeps.plan import Wanted, entrants, parse_seeds
    from suite.sweeps.plan_file import write_plan

    if not task or not mixer:
        missing = "--task NAME (suite list tasks)" if not task else "--mixer NAME (suite list mixers)"
        raise UserError(f"a sweep needs tasks and mixers; give {missing}")
    if plan and (dry_run or as_json):
        raise UserError(
            f"--plan writes a file and runs nothing; {'--dry-run' if dry_run else '--json'} has no meaning next to it: "
            "leave one out"
        )
    options = Options(on, address, gpus, jobs, threads, workers, device, deterministic)
    words, runner = written(options) if plan else [], executor(options)
    wanted = Wanted(tuple(task), tuple(mixer), scale, tuple(set_ or ()), parse_seeds(seeds), lrs, hybrid, data_dir)
    found, left = entrants(wanted)
    for each in left:
        err.print(marked("[yellow]left out:[/] {} · {}: {}", each.task, each.mixer, each.reason), soft_wrap=True)
    adopt(found, deterministic=deterministic)
    if plan:
        write_plan(plan, found, words)
        return
    if not as_json or dry_run:
        show_plan(found, left, jobs or 1, as_json=as_json)
    if dry_run:
        return
    progress, code = race(found, runner)
    if as_json:
        print_json({"races": [_result(each) for each in found], "errors": progress.errors})
    elif code < 128:
        _print_boards(found)
    raise typer.Exit(code)


def adopt(found: Sequence[Entrant], *, deterministic: bool = False) -> None:
    """Fills in the runs that ended earlier, or those that were deterministic."""
    from suite.records.collection import read_all

    records = [record for record in read_all().records if record.deterministic or not deterministic]
    for each in found:
        each.adopt(records)


def show_plan(found: Sequence[Entrant], left: Sequence[Left], jobs: int, *, as_json: bool) -> None:
    from rich.table import Table

    from suite.sweeps.estimate import seconds_per_run

    rows = []
    for task in dict.fromkeys(each.task_name for each in found):
        of_task = [each for each in found if each.task_name == task]
        each_s = seconds_per_run(of_task) if any(each.state().missing for each in of_task) else 0.0
        for each in of_task:
            done = len(each.scores)
            to_run = max(each.race.runs - done, len(each.state().missing))
            rows.append((each, done, to_run, to_run * each_s))
    total = sum(row[3] for row in rows) / jobs
    if as_json:
        races = [
            {"task": e.task_name, "mixer": e.label, "rates": e.race.rates, "seeds": e.race.seeds, "done": done}
            | {"to_run": to_run, "expected_s": seconds, "chosen": e.state().chosen}
            for e, done, to_run, seconds in rows
        ]
        print_json({"races": races, "expected_s": total, "left_out": [vars(each) for each in left]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "mixer", "rates", "seeds", "done", "to run", "time"):
        table.add_column(name, justify="left" if name in ("task", "mixer", "rates") else "right")
    for each, done, to_run, seconds in rows:
        rates = ", ".join(f"{rate:g}" for rate in each.race.rates)
        numbers = (str(len(each.race.seeds)), str(done), str(to_run), duration(seconds))
        table.add_row(each.task_name, each.label, rates, *numbers)
    err.print(table)
    err.print(f"{sum(row[2] for row in rows)} runs, about {duration(total)} with {jobs} job{'s' if jobs > 1 else ''}")


def race(found: Sequence[Entrant], runner: Executor) -> tuple[Progress, int]:
    """Runs the races to their ends, with a live table on a terminal. Returns what was done, and the exit code: 128 and
    more where a signal stopped it.
    """
    from rich.live import Live

    from suite.records import runs_folder
    from suite.sweeps.scheduler import Progress, carry_out
    from suite.sweeps.sent import sent
    from suite.sweeps.status import status_table, summary_line
    from suite.sweeps.stopping import stop_signals

    if not any(each.state().missing for each in found):
        return Progress(), 0
    runs_folder.writable_home()
    shown = -1
    live = Live(console=err, auto_refresh=False)
    sending = sent(runs_folder.home(), say, warn)
    with stop_signals() as received, sending, live if err.is_terminal else nullcontext():

        def show(progress: Progress) -> None:
            nonlocal shown
            if err.is_terminal:
                live.update(status_table(found, progress, runner.slots), refresh=True)
            elif progress.ran != shown:
                shown = progress.ran
                err.print(summary_line(found, progress, runner.slots), soft_wrap=True)

        progress = carry_out(found, runner, show=show, stopped=lambda: bool(received))
    if not received and progress.ran:
        _publish([each.task_name for each in found])
    for line in progress.errors:
        err.print(marked("[red]failed:[/] {}", line), soft_wrap=True)
    if received:
        err.print("stopped; the same command continues where it was")
        return progress, 128 + received[0]
    return progress, 1 if progress.errors else 0


def _publish(tasks: Sequence[str]) -> None:
    """The boards with their pages in the tracking store: a run at its end sends its board without the plots."""
    from suite.boards.tracked.rebuild import publish_boards
    from suite.tracking.error_messages import explain

    if os.environ.get("SUITE_TRACKING") == "off":
        return
    try:
        publish_boards(dict.fromkeys(tasks))
    except Exception as error:  # MLflow, its server, its database and the disk raise many types; records are complete
        warn(f"the boards were not published ({explain(error, 'the store')}); later: suite publish")


def _result(each: Entrant) -> dict[str, Any]:
    state = each.state()
    runs = [
        {"lr": rate, "seed": seed, "valid": score.valid, "status": score.status}
        for (rate, seed), score in sorted(each.scores.items())
    ]
    return {"task": each.task_name, "mixer": each.label, "chosen": state.chosen, "rates": state.rates, "runs": runs}


def _print_boards(found: Sequence[Entrant]) -> None:
    from suite.cli.commands.boards.leaderboard import find_boards, print_boards

    for task in dict.fromkeys(each.base.task for each in found):
        print_boards(find_boards(task, None, found[0].base.scale)[0])
