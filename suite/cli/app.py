"""The command line: the list of commands, and how a user's error is reported."""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from typing import Annotated, Any

import typer

from backbones import compiled
from suite.cli import unknown
from suite.cli.commands import (
    bench,
    budget,
    check,
    data,
    doctor,
    forecasts,
    language,
    listing,
    run,
    show,
    submissions,
    sweep,
    tracking,
    verify,
)
from suite.cli.commands.boards import compare, leaderboard, plot
from suite.cli.commands.planning import plan
from suite.console import stderr, stdout
from suite.safe_text import one_line, quoted, shortened
from suite.training.parallel import environment

#: What is wrong with a path that the user can choose.
PATH_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
)

app = typer.Typer(
    name="suite",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
lists = typer.Typer(no_args_is_help=True, help="Lists the available tasks and mixers, or the runs here.")
data_commands = typer.Typer(no_args_is_help=True, help="Describes or prepares a task's data.")
app.add_typer(lists, name="list")
app.add_typer(data_commands, name="data")
lists.command("tasks")(listing.list_tasks)
lists.command("mixers")(listing.list_mixers)
lists.command("runs")(listing.list_runs)
data_commands.command("info")(data.info)
data_commands.command("prepare")(data.prepare)
app.command(epilog=run.EXAMPLES)(run.run)
app.command(epilog=sweep.EXAMPLES)(sweep.sweep)
app.command(epilog=plan.EXAMPLES)(plan.plan)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=plot.EXAMPLES)(plot.plot)
for command in (
    show.show,
    budget.budget,
    leaderboard.leaderboard,
    tracking.ui,
    forecasts.forecasts,
    language.generate,
    language.lm_eval,
    check.check,
    submissions.enter,
    submissions.submit,
    verify.verify,
    bench.bench,
    tracking.publish,
    tracking.upload,
    doctor.doctor,
):
    app.command()(command)


@cache
def _command() -> Any:
    """The parser of all commands, made once in a process."""
    return typer.main.get_command(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version_line(), file=stdout)
        raise typer.Exit


def version_line() -> str:
    """The versions of the suite and of PyTorch, which is not imported, and the state of the compiled kernels."""
    from importlib.metadata import PackageNotFoundError, version

    from suite import __version__

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"mixer-suite {__version__}, torch {torch}, Python {python}, compiled kernels {compiled.state()}"


@app.callback(epilog=run.EXAMPLES)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the versions of the suite and PyTorch, and the state of the compiled kernels.",
        ),
    ] = False,
) -> None:
    """Which sequence mixer is really better, at equal cost? Budget-matched attention and its rivals in text, images and
    time series.
    """
    if context.invoked_subcommand not in (None, "run"):
        environment.require_alone(context.invoked_subcommand)


def main() -> None:
    """The console script: a user's error is one line on stderr and exit code 2."""
    _let_idle_threads_sleep()
    try:
        code = _command()(standalone_mode=False)
    except BrokenPipeError:  # the reader of a help text or a table has seen enough
        code = 0
    except Exception as error:
        message = _user_message(error)
        if message is None:
            raise
        if environment.reports(error):
            print(f"error: {one_line(shortened(message))}", file=stderr)
        code = getattr(error, "code", 2)
    except KeyboardInterrupt:
        code = 130
    stdout.flush()
    stderr.flush()
    sys.exit(code if isinstance(code, int) else 0)


def _let_idle_threads_sleep() -> None:
    """Idle threads wait in a loop for some 60 µs, then sleep.

    Medians of training steps on 2 cores over one thread, and of their slowdown next to a busy process: on an AMD EPYC
    threads that sleep at once gain 1.2 to 1.5 times and lose 1.4 to 1.6; with 56 µs 1.2 to 1.7 and 1.6 to 2.0; with
    450 µs 1.4 to 1.8 and 3.2 to 3.5. On an Intel Xeon 20 µs gain 1.4 to 1.7 and lose 1.3 to 1.5, 80 µs 1.5 to 1.7 and
    1.7 to 2.0. PyTorch's runtime reads the variables once, when it is loaded; GNU's prefers the second.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", str(compiled.rounds()))


def _user_message(error: Exception) -> str | None:
    """The line to print for an error that the user can fix; None for a bug of the suite."""
    if hasattr(error, "option_name") and type(error).__name__ == "NoSuchOption":
        return unknown.unknown_option(error)
    if hasattr(error, "format_message"):  # typer's and click's usage errors; without a command the help was printed
        return " ".join(str(error.format_message()).split()) or "no command given"
    # UserError, DataError, MixerError and RecordError; or a second signal outside the training loop
    if getattr(error, "exit_code", None) == 2 or type(error).__name__ == "Interrupted":
        return " ".join(str(error).split())
    if type(error).__name__ == "Abort":
        return "aborted"
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.errno in PATH_ERRORS:
        return f"{quoted(error.filename)}: {os.strerror(error.errno).lower()}; fix that, or use another path"
    if isinstance(error, MemoryError):
        return "out of memory; lower the batch size, the length or the model's width and depth"
    return None


if __name__ == "__main__":
    main()
