"""One run from config to record: certify, build, fit, select on validation, test once, track, write."""

from __future__ import annotations

import math
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

import tasks
from suite.config.run_config import RunConfig
from suite.console import TrainingProgress, say
from suite.errors import UserError, first_line
from suite.models.candidate import Candidate, parse
from suite.models.inputs import Backbone
from suite.models.resolve import resolve_written
from suite.records import provenance, record, runs_folder
from suite.tracking.client import Tracker
from suite.training import checkpoint, forecast_plot
from suite.training.attention_maps import PICTURE, attention_maps, draw, figures
from suite.training.evaluate import evaluate
from suite.training.job import Ending, Job, assemble, describe_data
from suite.training.mirror import close_tracker, open_tracker
from suite.training.signals import Interrupted, StopSignal
from suite.training.trainer import Diverged, FitResult, Trainer, loader_workers
from tasks.base import DataError, Task, TextTask
from tasks.series.forecasting import ForecastTask

TRACEBACK = "traceback.txt"


def pick_device(name: str) -> torch.device:
    """`auto` takes a CUDA GPU where there is one, otherwise the CPU. Raises UserError for a device that is not
    there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"device {name!r} cannot be used ({reason}); allowed here: auto, cpu" + _cuda_names()) from None
    return device


def _cuda_names() -> str:
    return "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))


def _require_runnable(candidate: Candidate, device: torch.device) -> None:
    if obstacle := candidate.obstacle(device):
        raise UserError(obstacle)


class RunObserver:
    """Passes what the loop tells on to the progress bar and to tracking."""

    def __init__(self, job: Job, progress: TrainingProgress, tracker: Tracker) -> None:
        self.job, self.progress, self.tracker = job, progress, tracker

    def started(self, step: int, total: int) -> None:
        self.job.start_s = time.time() - psutil.Process().create_time()
        self.progress.started(step, total)

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        self.progress.stepped(step, loss)
        self.tracker.log(step, {"train/loss": loss, "train/lr": lr, "train/grad_norm": grad_norm})

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        self.progress.validated(step, metrics)
        self.tracker.log(step, {f"valid/{name}": value for name, value in metrics.items()})

    def before_checkpoint(self, step: int) -> None:
        self.tracker.flush()

    def warn(self, message: str) -> None:
        self.progress.warn(message)


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its record, where it stands, and the exit code that goes with it."""

    record: record.Record
    path: Path | None  # None where no disk took it; it then stands on stderr
    exit_code: int


def start(config: RunConfig, *, data_dir: Path | None, device: str, candidate: Candidate | None = None) -> Outcome:
    """Runs a config to its record. Raises UserError, DataError or MixerError before anything has started."""
    candidate = candidate or parse(config.mixer)
    chosen = pick_device(device)
    _require_runnable(candidate, chosen)
    task = tasks.get(config.task)(config.data, data_dir)
    plan, certificate = candidate.check(config, task.spec)
    config = config.model_copy(update={"mixer_options": plan.mixer_options})
    runs_folder.writable_home()
    say(task.prepare_note())
    task.load()
    folder = runs_folder.new_run(config, data_dir)
    if isinstance(task, TextTask):
        task.keep_tokenizer(folder)
    with runs_folder.alone(folder):
        return _carry_out(
            Job(
                config,
                candidate,
                folder,
                task,
                chosen,
                plan,
                certificate,
                runs_folder.now(),
                *_origin(candidate, task, chosen),
            )
        )


def _origin(candidate: Candidate, task: Task, device: torch.device) -> tuple[record.Code, record.Hardware, record.Data]:
    return provenance.code(candidate.origin), provenance.hardware(device), describe_data(task)


def resume(run: str, *, data_dir: Path | None, device: str) -> Outcome:
    """Takes up a run at its last checkpoint. Raises UserError when it is finished, unknown, under way, or has no
    checkpoint.
    """
    folder = runs_folder.find_run(run)
    with runs_folder.alone(folder):
        return _resume(folder, data_dir, device)


def _resume(folder: Path, data_dir: Path | None, device: str) -> Outcome:
    if runs_folder.finished(folder):
        raise UserError(f"run {folder.name} is finished; nothing is left to resume")
    written = runs_folder.read_run(folder)
    resolved = resolve_written(written["config"])
    config, candidate = resolved.config, resolved.candidate
    data_dir = data_dir or (Path(written["data_dir"]) if written["data_dir"] else None)
    chosen = pick_device(device)
    _require_runnable(candidate, chosen)
    state = checkpoint.load(folder, chosen)
    if state["identity"] != config.identity:
        raise UserError(f"run {folder.name}: its checkpoint belongs to another config; start it anew")
    task = tasks.get(config.task)(config.data, data_dir)
    if isinstance(task, TextTask):
        task.use_tokenizer(folder)  # the run keeps its own: the file it came from may have moved
    plan, certificate = candidate.check(config, task.spec)
    task.load()
    job = Job(
        config,
        candidate,
        folder,
        task,
        chosen,
        plan,
        certificate,
        written["created"],
        *_origin(candidate, task, chosen),
        resume=state,
        resumed_at=[*state["resumed_at"], int(state["step"])],
    )
    for what, before in state["origin"].items():
        if job.origin()[what] != before:
            raise UserError(
                f"run {folder.name} cannot go on: its {what} was {before}, now it is {job.origin()[what]}; "
                "start it anew"
            )
    if _model(job).state_dict().keys() != state["model"].keys():
        raise UserError(
            f"run {folder.name} cannot go on: it was begun by another version, whose model has other parts; "
            "start it anew"
        )
    return _carry_out(job)


def _carry_out(job: Job) -> Outcome:
    metric = job.task.primary
    progress = TrainingProgress(
        f"{job.config.task} · {job.config.mixer}", metric, job.config.train.batch_size, job.task.unit
    )
    ending = Ending("failed", None, 1)
    result: FitResult | None = None
    with StopSignal() as stop, progress, open_tracker(job, progress.warn) as tracker:
        try:
            result = _fit_and_test(job, RunObserver(job, progress, tracker), stop)
            ending = Ending("finished", None, 0)
        except Diverged as problem:
            ending = Ending("diverged", str(problem), 1)
        except Interrupted as problem:
            ending = Ending("interrupted", str(problem), problem.code)
        except (DataError, UserError) as problem:
            ending = Ending("failed", str(problem), 1)
        except Exception as problem:
            what = f"{type(problem).__name__}: {first_line(problem)}"
            ending = Ending("failed", f"{what} (the whole story: {TRACEBACK} in the run's folder)", 1)
            _keep_traceback(job, progress)
        stop.shield()  # from here on a signal may not cost the record
        made = assemble(job, ending, result, tracker.run)
        path = _write(job, made, progress)
        stop.unshield()
        if isinstance(job.selected, Backbone):
            _show_attention(job, job.selected, tracker, progress)
        if job.selected is not None and isinstance(job.task, ForecastTask):
            _show_forecasts(job, job.selected, job.task, tracker, progress)
        _close_tracking(job, made, tracker, progress)
        if made.mlflow is None and tracker.run is not None:  # a run shorter than the store's start
            made = made.model_copy(update={"mlflow": {"run_id": tracker.run.run_id, "uri": tracker.run.uri}})
            path = _write(job, made, progress)
    return Outcome(made, path, ending.exit_code)


def _close_tracking(job: Job, made: record.Record, tracker: Tracker, progress: TrainingProgress) -> None:
    """Tracking is a mirror: whatever happens to it, the run has ended and its record is written."""
    later = f"the record is whole; send the rest later: suite upload {job.folder.name}"
    try:
        close_tracker(job, made, tracker)
    except Interrupted:
        progress.warn(f"tracking: cut short by a second signal; {later}")
    except Exception as problem:
        progress.warn(f"tracking: {type(problem).__name__}: {first_line(problem)}; {later}")


def _model(job: Job) -> nn.Module:
    return job.candidate.build(job.config, job.task, job.plan)


def _fit_and_test(job: Job, observer: RunObserver, stop: StopSignal) -> FitResult:
    torch.manual_seed(job.config.seed)
    model = _model(job).to(job.device)
    trainer = Trainer(model, job.task, job.config, device=job.device, run_dir=job.folder, observer=observer, stop=stop)
    trainer.origin, trainer.resumed_at = job.origin(), job.resumed_at
    if job.resume is not None:
        trainer.restore(job.resume)
    job.trace = trainer.trace  # the same list: a run that ends badly keeps what it saw
    result = trainer.fit()
    selected = trainer.evaluated
    selected.load_state_dict(result.best.weights)
    test, seen = _test(job, selected)
    metrics = {"valid": result.best.metrics, "valid_last": result.final_valid, "test": test}
    if job.config.skip_variant_layers and isinstance(selected, Backbone):
        variants = set(range(job.config.model.depth)) - {i - 1 for i in job.config.hybrid}
        with selected.trunk.without(variants):
            metrics["test_skip"], _ = _test(job, selected)
    if not all(math.isfinite(value) for values in metrics.values() for value in values.values()):
        raise Diverged(f"a figure of the selected checkpoint (step {result.best.step}) is not finite")
    job.metrics, job.n_evaluated = metrics, {"valid": job.task.n_examples("valid"), "test": seen}
    job.selected = selected
    return result


def _show_attention(job: Job, selected: Backbone, tracker: Tracker, progress: TrainingProgress) -> None:
    """Tracks what the selected model attends to, where its mixers can show it. The record is written: nothing here may
    cost it.
    """
    try:
        maps = attention_maps(selected, job.task, job.device)
        if maps:
            tracker.summary(figures(maps))
            tracker.artifact_file(draw(maps, job.folder / PICTURE))
    except Exception as problem:
        progress.warn(f"the attention maps could not be shown: {type(problem).__name__}: {first_line(problem)}")


def _show_forecasts(
    job: Job, selected: nn.Module, task: ForecastTask, tracker: Tracker, progress: TrainingProgress
) -> None:
    """Tracks a picture of a few forecasts against what came. The record is written: nothing here may cost it."""
    try:
        path = job.folder / forecast_plot.PICTURE
        tracker.artifact_file(
            forecast_plot.draw_forecasts(selected, task, job.device, job.config.train.precision, path)
        )
    except Exception as problem:
        progress.warn(f"the forecasts could not be shown: {type(problem).__name__}: {first_line(problem)}")


def _test(job: Job, model: nn.Module) -> tuple[dict[str, float], int]:
    train, workers = job.config.train, loader_workers(job.task)
    return evaluate(
        model,
        job.task,
        "test",
        batch_size=train.eval_batch_size,
        device=job.device,
        precision=train.precision,
        workers=workers,
    )


def _keep_traceback(job: Job, progress: TrainingProgress) -> None:
    text = traceback.format_exc()
    try:
        (job.folder / TRACEBACK).write_text(text, "utf-8")
    except OSError:
        progress.warn(text)


def _write(job: Job, made: record.Record, progress: TrainingProgress) -> Path | None:
    """Writes the record; where the run's folder refuses it, somewhere else, at worst to stderr, and says where."""
    try:
        return record.write(job.folder, made)
    except OSError as error:
        refused = error.strerror
    try:
        spare = record.write(Path(tempfile.mkdtemp(prefix="mixer-suite-")), made)
        progress.warn(f"the record could not be written to {job.folder} ({refused}); it is in {spare.parent}")
        return spare
    except OSError:
        progress.warn(
            f"the record could be written nowhere ({refused}); here it is: "
            f"{made.sealed().model_dump_json(by_alias=True)}"
        )
        return None
