"""The command line: one thin function a command. Heavy imports stand inside, so that `suite --help` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from suite import options as opt

EXAMPLES = """
**Examples**

`suite run --task fashion-mnist --mixer fem`

`suite run --task household-power --mixer softmax --horizon 192 --seed 1 --set lr=5e-4`

`suite run --task imagenet100 --mixer fem --data-dir ~/imagenet`

`suite leaderboard --task fashion-mnist`
"""

app = typer.Typer(
    name="suite", no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, epilog=EXAMPLES,
    help="Which sequence mixer is really better, at equal cost? Budget-matched attention and its rivals in text, images and time series.",
)  # fmt: skip
listing = typer.Typer(no_args_is_help=True, help="What there is: tasks and mixers.")
data = typer.Typer(no_args_is_help=True, help="A task's data: what they are, and getting them ready.")
app.add_typer(listing, name="list")
app.add_typer(data, name="data")


def emit(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


@app.command(epilog=EXAMPLES)
def run(
    task: opt.Task = None,
    mixer: opt.Mixer = None,
    scale: opt.Scale = None,
    seed: opt.Seed = None,
    steps: opt.Steps = None,
    horizon: opt.Horizon = None,
    track: opt.Track = None,
    hybrid: opt.Hybrid = None,
    set_: opt.Set = None,
    recipe: opt.Recipe = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    resume: opt.Resume = None,
    unmatched: opt.Unmatched = False,
    skip_variant_layers: opt.Skip = False,
    as_json: opt.Json = False,
) -> None:
    """Trains a budget-matched mixer on a task, tests the checkpoint that validation chose, and writes its record."""
    from suite.report import report_run

    chosen: dict[str, Any] = {
        "task": task, "mixer": mixer, "scale": scale, "seed": seed, "steps": steps, "horizon": horizon, "track": track,
        "hybrid": hybrid, "sets": set_ or [], "recipe": recipe, "unmatched": unmatched,
        "skip_variant_layers": skip_variant_layers,
    }  # fmt: skip
    if resume:
        from suite.errors import UserError
        from suite.run import resume as resume_run

        if any(chosen.values()) or seed is not None:
            raise UserError("--resume goes on with the run's own config; drop the other options (--data-dir and --device may stay)")
        outcome = resume_run(resume, data_dir=data_dir, device=device)
    else:
        from suite.resolve import resolve
        from suite.run import start

        outcome = start(resolve(**chosen), data_dir=data_dir, device=device)
    if as_json:
        emit(outcome.record.sealed().model_dump(mode="json", by_alias=True))
    report_run(outcome, quiet=as_json)
    raise typer.Exit(outcome.exit_code)


@listing.command("tasks")
def list_tasks(as_json: opt.Json = False) -> None:
    """The tasks, with their domain and primary metric."""
    from suite import report

    found = report.describe_tasks()
    emit(found) if as_json else report.show_rows(found, ("name", "domain", "metric", "data", "summary"))


@listing.command("mixers")
def list_mixers(as_json: opt.Json = False) -> None:
    """The mixers, with their paper and what they can do."""
    from suite import report

    found = report.describe_mixers()
    emit(found) if as_json else report.show_mixers(found)


@app.command()
def show(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's id or folder; or name a task and a mixer.")] = None,
    task: opt.Task = None,
    mixer: opt.Mixer = None,
    scale: opt.Scale = None,
    horizon: opt.Horizon = None,
    track: opt.Track = None,
    hybrid: opt.Hybrid = None,
    set_: opt.Set = None,
    recipe: opt.Recipe = None,
    as_json: opt.Json = False,
) -> None:
    """Shows a run's record; or, before any run, every option a task and a mixer resolve to. Needs no data.

    `suite show --task sotu --mixer fem --set lr=3e-3`
    """
    from suite import report
    from suite.errors import UserError

    if run_id:
        if any((task, mixer, scale, horizon, track, hybrid, set_, recipe)):
            raise UserError("a run has its own config: name a run, or a task and a mixer with their options, not both")
        found = report.describe_run(run_id)
        emit(found) if as_json else report.show_run(found)
        return
    from suite.resolve import resolve

    config = resolve(task=task, mixer=mixer, scale=scale, horizon=horizon, track=track, hybrid=hybrid, sets=set_ or [], recipe=recipe)
    emit(report.describe_config(config)) if as_json else report.show_config(config)


@app.command()
def budget(
    task: opt.Task = None,
    mixer: opt.Mixer = None,
    scale: opt.Scale = None,
    horizon: opt.Horizon = None,
    track: opt.Track = None,
    hybrid: opt.Hybrid = None,
    set_: opt.Set = None,
    recipe: opt.Recipe = None,
    as_json: opt.Json = False,
) -> None:
    """Sizes a mixer for a task and counts it beside softmax. Needs no data. Exit code 1 when it is not matched.

    `suite budget --task imagenet100 --mixer fem --scale paper --json`
    """
    from suite import report
    from suite.resolve import resolve

    config = resolve(task=task, mixer=mixer, scale=scale, horizon=horizon, track=track, hybrid=hybrid, sets=set_ or [], recipe=recipe)
    found = report.describe_budget(config)
    emit(found) if as_json else report.show_budget(found)
    raise typer.Exit(0 if found["matched"] else 1)


@data.command("info")
def data_info(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    data_dir: opt.DataDir = None,
    scale: opt.DataScale = None,
    set_: opt.DataSet = None,
    as_json: opt.Json = False,
) -> None:
    """Where a task's data come from, their licence, splits and fingerprint."""
    from suite import report

    found = report.describe_data(task, data_dir, scale, set_ or [])
    emit(found) if as_json else report.show_mapping(found)


@data.command("prepare")
def data_prepare(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    data_dir: opt.DataDir = None,
    scale: opt.DataScale = None,
    set_: opt.DataSet = None,
    as_json: opt.Json = False,
) -> None:
    """Downloads or reads all of a task's data, checks them and caches what runs need. Goes on where it was stopped.

    `suite data prepare text --data-dir ~/novels --set tokenizer=bpe --set vocab=4096`
    """
    from suite import report

    found = report.prepare_data(task, data_dir, scale, set_ or [])
    emit(found) if as_json else report.show_mapping(found)


@app.command()
def leaderboard(
    task: opt.Task = None,
    domain: Annotated[str | None, typer.Option("--domain", help="language, vision, forecasting or recall.", show_default=False)] = None,
    scale: Annotated[str | None, typer.Option("--scale", help="Only this scale.", show_default=False)] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")] = False,
    as_json: opt.Json = False,
) -> None:
    """The boards of the runs here: a row a mixer, ordered by the primary metric on test.

    `suite leaderboard --task fashion-mnist --markdown > board.md`
    """
    from suite import report

    found = report.find_boards(task, domain, scale)
    if as_json:
        emit(report.plain_boards(found))
    else:
        report.show_boards(found, as_markdown=markdown)


@app.command()
def ui(
    task: opt.Task = None,
    port: opt.Port = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Opens the MLflow UI on a task's board; Ctrl-C ends it."""
    from suite import home
    from suite.ui import serve

    if task:
        import tasks

        tasks.get(task)
    raise typer.Exit(serve(home.writable_home(), port, task=task, open_browser=browser))


@app.command()
def generate(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A language model's run: its id or folder.")],
    prompt: Annotated[str, typer.Option("--prompt", help="The text to go on from.")] = "",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How many tokens to write.")] = 200,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Choose among the k likeliest; 0: all.")] = 0,
    seed: opt.Seed = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Writes text with a trained language model, token by token through the mixers' decoding state.

    `suite generate sotu-fem --prompt "My fellow Americans, "`
    """
    from suite import report

    text = report.generate_text(run_id, prompt, tokens, temperature, top_k, seed or 0, device, echo=not as_json)
    if as_json:
        emit({"run": run_id, "prompt": prompt, "text": text, "seed": seed or 0})


@app.command("lm-eval")
def lm_eval(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A language model's run: its id or folder.")],
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks of the harness, with commas between.")],
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many examples a task.", show_default=False)] = None,
    include: Annotated[Path | None, typer.Option("--include", help="Folder with task files of your own.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts scored at once.")] = 16,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Evaluates a trained language model zero-shot with lm-evaluation-harness (the extra `eval`).

    `suite lm-eval wikitext103-fem --tasks lambada_openai,piqa`
    """
    from suite import report

    found = report.harness_figures(run_id, tasks, limit, include, batch_size, device)
    emit(found) if as_json else report.show_harness(found)


@app.command()
def check(
    mixer: Annotated[str, typer.Argument(metavar="MIXER", help="A mixer's name, or path/to/file.py:Class.")],
    slow: Annotated[bool, typer.Option("--slow", help="The expensive checks too (gradcheck of every parameter, torch.compile).")] = False,
    as_json: opt.Json = False,
) -> None:
    """Runs the mixer contract on a mixer, your own file included, and shows what holds. Exit code 1 when something does not.

    `suite check examples/moving_average.py:MovingAverage`
    """
    from suite import check as contract
    from suite import report

    results = contract.run_checks(mixer, slow=slow)
    if as_json:
        emit(contract.as_json(mixer, results))
    else:
        report.out.print(contract.render(mixer, results))
    raise typer.Exit(1 if any(result.status == "failed" for result in results) else 0)


@app.command()
def bench(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="kernels, mixers, train or decode.")],
    mixer: Annotated[list[str] | None, typer.Option("--mixer", help="Only this mixer (mixers, train, decode); repeat for more.")] = None,
    lengths: Annotated[str | None, typer.Option("--lengths", help="Tokens, with commas (kernels, mixers).", show_default=False)] = None,
    against: Annotated[list[str] | None, typer.Option("--against", help="Only this peer; repeat for more.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Interleaved rounds; medians are over them.")] = 9,
    threads: Annotated[int, typer.Option("--threads", min=1, help="More than 1 takes wall time: keep the machine quiet.")] = 1,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draws to a .png, .svg or .pdf file.", show_default=False)] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Keeps JSON, plot and a page of all figures in a folder.", show_default=False)
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Times kernels, mixer layers, training steps or decoding beside their peers, in turns. Exit code 1 when a demand is not met.

    `suite bench kernels --lengths 256,1024 --plot kernels.png`
    """
    from suite.bench import report as bench_report
    from suite.bench import shelf
    from suite.report import out

    if folder is not None:
        shelf.open_for_writing(folder)
    document = bench_report.run(kind, mixer or [], lengths, against or [], rounds, threads, plot)
    if folder is not None:
        shelf.put(document, folder)
    emit(document) if as_json else bench_report.show(document, out)
    raise typer.Exit(1 if bench_report.missed(document) else 0)


@app.command()
def upload(run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder.")], as_json: opt.Json = False) -> None:
    """Sends a run's tracking journal to the store again, after the store could not be reached."""
    from suite import report

    found = report.upload_run(run_id)
    emit(found) if as_json else report.show_mapping(found)


@app.command()
def doctor(as_json: opt.Json = False) -> None:
    """Looks over the installation, the runs folder and the store; closes the tracked runs of dead processes."""
    from suite import doctor as checks
    from suite import report

    found = checks.examine()
    emit([check.plain() for check in found]) if as_json else report.show_checks(found)
    raise typer.Exit(0 if all(check.ok for check in found) else 1)


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
    if hasattr(error, "format_message"):  # typer's and click's usage errors; without a command they have shown the help instead
        return " ".join(str(error.format_message()).split()) or "no command given"
    # the user's: UserError, DataError, MixerError, RecordError; the other: a second signal outside the training loop
    if getattr(error, "exit_code", None) == 2 or type(error).__name__ == "Interrupted":
        return " ".join(str(error).split())
    if type(error).__name__ == "Abort":
        return "aborted"
    return None


if __name__ == "__main__":
    main()
