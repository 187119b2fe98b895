"""The command line: which commands there are, and how a user's mistake is told."""

from __future__ import annotations

import errno
import os
import sys

import typer

from suite.cli.commands import listings, models, quality, results, runs

EXAMPLES = """
**Examples**

`suite run --task fashion-mnist --mixer fem`

`suite run --task household-power --mixer softmax --horizon 192 --seed 1 --set lr=5e-4`

`suite run --task imagenet100 --mixer fem --data-dir ~/imagenet`

`suite leaderboard --task fashion-mnist`
"""

NO_PLACE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
)  # a file's place, which is the user's to choose

app = typer.Typer(
    name="suite",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog=EXAMPLES,
    help="Which sequence mixer is really better, at equal cost? Budget-matched attention and its rivals in "
    "text, images and time series.",
)
listing = typer.Typer(no_args_is_help=True, help="What there is: tasks and mixers.")
data = typer.Typer(no_args_is_help=True, help="A task's data: what they are, and getting them ready.")
app.add_typer(listing, name="list")
app.add_typer(data, name="data")
listing.command("tasks")(listings.list_tasks)
listing.command("mixers")(listings.list_mixers)
data.command("info")(listings.data_info)
data.command("prepare")(listings.data_prepare)
app.command(epilog=EXAMPLES)(runs.run)
for command in (
    runs.show,
    runs.budget,
    results.leaderboard,
    results.ui,
    models.generate,
    models.lm_eval,
    quality.check,
    quality.bench,
    results.upload,
    results.doctor,
):
    app.command()(command)


def main() -> None:
    """The console script: every user's mistake is one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        message = _user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        code = getattr(error, "code", 2)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _user_message(error: Exception) -> str | None:
    """The one line of an error that is the user's to mend; None for one that is ours."""
    if hasattr(
        error, "format_message"
    ):  # typer's and click's usage errors; without a command they have shown the help instead
        return " ".join(str(error.format_message()).split()) or "no command given"
    # the user's: UserError, DataError, MixerError, RecordError; the other: a second signal outside the training loop
    if getattr(error, "exit_code", None) == 2 or type(error).__name__ == "Interrupted":
        return " ".join(str(error).split())
    if type(error).__name__ == "Abort":
        return "aborted"
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.errno in NO_PLACE:
        return f"{error.filename}: {os.strerror(error.errno).lower()}; mend that, or name another place"
    return None


if __name__ == "__main__":
    main()
