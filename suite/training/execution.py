"""Carrying out a prepared run: train, select on validation, test once, record, track."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from backbones.decoder import Decoder
from backbones.implementations import forget_implementations
from suite.console import warn
from suite.errors import UserError, first_line, reason
from suite.models.inputs import Backbone
from suite.models.memory import out_of_memory
from suite.progress import TrainingProgress
from suite.records import record
from suite.records.schema import Record, Tracked
from suite.tracking.client import Tracker
from suite.training.deterministic import mode
from suite.training.deterministic.repeats import NotRepeatable, require_equal_passes
from suite.training.evaluate import UnitTally, decoded_per_s, evaluate
from suite.training.job import Ending, Job, assemble
from suite.training.loop.observer import Observer
from suite.training.loop.results import FitResult
from suite.training.mirror import close_tracker, open_tracker
from suite.training.observer import Quiet, RunObserver
from suite.training.outcome import TRACEBACK, Outcome, keep_traceback, write_record
from suite.training.parallel.ranks import ALONE, Ranks
from suite.training.pictures import show_pictures
from suite.training.processors import loader_workers
from suite.training.signals import Interrupted, RankStop, Stop, StopSignal
from suite.training.trainer import Diverged, Trainer
from tasks.base import DataError

POLL_S = 0.1
LOSS_S = 3.0  # within which the end of another rank is known when a collective operation has failed
SPLITS: tuple[Literal["valid", "test"], ...] = ("valid", "test")


@dataclass(frozen=True)
class Orders:
    """What the other ranks must know of the run that rank 0 carries out: its folder, the fingerprint of its data, the
    step of the checkpoint that it continues, if any, and rank 0's code of the suite, the task and the mixer.
    """

    folder: Path
    fingerprint: str
    step: int | None
    code: tuple[str, str, str]


def code_of(job: Job) -> tuple[str, str, str]:
    """What all ranks must have equal: the version of the suite, and where task and mixer come from."""
    return job.code.version, job.code.task_origin, job.code.mixer_origin


def carry_out(job: Job, observer: Observer | None, stop: Stop | None) -> Outcome:
    """Runs a job to its record, however it ends. `observer` replaces the progress bar, `stop` the signal handlers. Of
    several ranks, rank 0 calls it.
    """
    with ExitStack() as stack:
        stop = stop or stack.enter_context(StopSignal() if job.ranks.world == 1 else RankStop())
        step = job.resume["step"] if job.resume else None
        job.ranks.announce(Orders(job.folder, job.data.fingerprint, step, code_of(job)))
        shown = observer or stack.enter_context(_progress(job))
        tracker = stack.enter_context(open_tracker(job, shown.warn))
        job.ranks.on_loss(lambda lost: _record_loss(job, lost, shown.warn))
        try:
            ending, result = _attempt(job, RunObserver(job, shown, tracker), stop)
        except BaseException as problem:  # raised while a failure was handled
            ending, result = Ending("failed", _named(problem), 1), None
        stop.shield()  # from now on a signal may not cost the record
        job.ranks.settle()
        made = assemble(job, ending, result, tracker.run)
        path = write_record(job, made, shown.warn)
        stop.unshield()
        if job.pictures:
            show_pictures(job, tracker, shown.warn)
        _close_tracking(job, made, tracker, shown.warn)
        if made.mlflow is None and tracker.run is not None:  # the run was shorter than the store's start
            made = made.model_copy(update={"mlflow": Tracked(run_id=tracker.run.run_id, uri=tracker.run.uri)})
            path = write_record(job, made, shown.warn)
    return Outcome(made, path, ending.exit_code)


def take_part(job: Job) -> int:
    """Trains and tests as one of several ranks other than the first; writes no record, unless rank 0 was lost.

    Args:
        job: of this rank.

    Returns:
        The exit code: 0 unless this rank failed or rank 0 was lost.
    """
    with RankStop() as stop:
        before = record.stamp(job.folder)
        job.ranks.on_loss(lambda lost: _record_loss(job, lost, warn, before))
        try:
            _fit_and_test(job, Quiet(), stop)
        except (Diverged, Interrupted, NotRepeatable):  # on all ranks alike
            return 0
        except Exception as problem:
            stop.shield()
            job.ranks.settle()
            if lost := job.ranks.loss(LOSS_S):
                _record_loss(job, lost, warn, before)
                return 1
            if job.ranks.dismissed:
                return 0
            keep_traceback(job, warn, f"traceback.rank{job.ranks.rank}.txt")
            raise UserError(f"rank {job.ranks.rank}: {out_of_memory(problem) or _named(problem)}") from None
        job.ranks.settle()
    return 0


def _record_loss(job: Job, lost: str, warn: Callable[[str], None], before: int | None = None) -> None:
    """The record of a run that ended because a process did, unless another process writes it. `before`: the stamp of an
    earlier record, which the run may have where it was resumed.
    """
    wait_s = job.ranks.reports_loss_after
    if wait_s is None:
        return
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        if record.stamp(job.folder) != before:
            return
        time.sleep(POLL_S)
    write_record(job, assemble(job, Ending("failed", lost, 1), None, None), warn)


def build_model(job: Job) -> nn.Module:
    """The run's model, its parameters drawn from PyTorch's global generator."""
    return job.candidate.build(job.config, job.task, job.plan)


def _progress(job: Job) -> TrainingProgress:
    name = f"{job.config.task_name} · {job.config.mixer_name}"
    return TrainingProgress(name, job.task.primary, job.config.train.batch_size, job.task.unit)


def _attempt(job: Job, observer: RunObserver, stop: Stop) -> tuple[Ending, FitResult | None]:
    """Trains and tests; every failure becomes the run's ending."""
    try:
        return Ending("finished", None, 0), _fit_and_test(job, observer, stop)
    except BaseException as problem:  # SystemExit too, which a mixer's own code may raise
        stop.shield()
        job.ranks.settle()
        return _ending(job, problem, observer.warn), None


def _ending(job: Job, problem: BaseException, warn: Callable[[str], None]) -> Ending:
    match problem:
        case Diverged():
            _evaluate_untrained(job, warn)
            return Ending("diverged", str(problem), 1)
        case Interrupted():
            return Ending("interrupted", str(problem), problem.code)
        case DataError() | UserError():
            return Ending("failed", str(problem), 1)
        case RuntimeError() if "DataLoader worker" in str(problem):
            cause = (
                f"a process that loads data has died ({first_line(problem)}); often the machine has too little memory"
            )
            return Ending("failed", cause, 1)
    if lost := job.ranks.loss(LOSS_S if isinstance(problem, RuntimeError) else 0.0):
        return Ending("failed", lost, 1)
    if advice := out_of_memory(problem) or mode.refused_operation(problem, job.device):
        return Ending("failed", advice, 1)
    keep_traceback(job, warn)
    return Ending("failed", f"{_named(problem)} (full traceback: {TRACEBACK} in the run's folder)", 1)


def _named(problem: BaseException) -> str:
    return reason(problem) if isinstance(problem, OSError) else f"{type(problem).__name__}: {first_line(problem)}"


def _evaluate_untrained(job: Job, warn: Callable[[str], None]) -> None:
    """A diverged run counts on boards with the figures of its untrained model, where these are finite."""
    torch.manual_seed(job.config.seed)
    metrics, counts = dict[str, dict[str, float]](), dict[str, int]()
    try:
        model = build_model(job).to(job.device)
        tally = UnitTally(job.task, warn)
        for split in SPLITS:
            metrics[split], counts[split] = _evaluate(
                job, model, split, tally if split == "test" else None, ranks=ALONE
            )
        units = tally.recorded(metrics["test"][job.task.primary.name])
    except Exception as problem:
        warn(f"the untrained model could not be evaluated ({first_line(problem)}); the run has no figures")
        return
    if all(math.isfinite(value) for values in metrics.values() for value in values.values()):
        job.metrics, job.n_evaluated, job.test_units = metrics, counts, units


def _fit_and_test(job: Job, observer: Observer, stop: Stop) -> FitResult:
    mode.seed_generators(job.config.seed)
    forget_implementations()  # of an earlier run of this process
    trainer = _trainer(job, observer, stop)
    trainer.origin, trainer.resumed_at = job.origin(), job.resumed_at
    if job.resume is not None:
        trainer.restore(job.resume)
    if mode.active():
        require_equal_passes(trainer)
    job.trace = trainer.trace  # the same list, so that a failed run's record has the losses up to the failure
    result = trainer.fit()
    selected = trainer.selected(result.best)
    tally = UnitTally(job.task, observer.warn)
    test, n_tested = _evaluate(job, selected, "test", tally)
    metrics = {"valid": result.best.metrics, "valid_last": result.final_valid, "test": test}
    if job.config.skip_variant_layers and isinstance(selected, Backbone):
        variants = set(range(job.config.model.depth)) - {i - 1 for i in job.config.hybrid}
        with selected.trunk.without(variants):
            metrics["test_skip"], _ = _evaluate(job, selected, "test")
    if not all(math.isfinite(value) for values in metrics.values() for value in values.values()):
        raise Diverged(f"a metric of the selected checkpoint (step {result.best.step}) is not finite")
    job.metrics, job.n_evaluated = metrics, {"valid": job.task.n_examples("valid"), "test": n_tested}
    job.test_units = tally.recorded(test[job.task.primary.name])
    job.selected = selected
    if job.pictures and isinstance(selected, Decoder):
        job.decoded_per_s = _decoding_speed(job, selected, observer.warn)
    return result


def _trainer(job: Job, observer: Observer, stop: Stop) -> Trainer:
    place: dict[str, Any] = {"device": job.device, "run_dir": job.folder, "observer": observer, "stop": stop}
    if job.ranks.world == 1:
        return Trainer(build_model(job).to(job.device), job.task, job.config, **place)
    from suite.training.parallel.trainer import ParallelTrainer

    build = lambda: build_model(job).to(job.device)  # noqa: E731
    return ParallelTrainer(build, job.task, job.config, **place, ranks=job.ranks)


def _decoding_speed(job: Job, model: Decoder, warn: Callable[[str], None]) -> float | None:
    """Tokens per second; a mixer that cannot decode costs this figure, and never the run."""
    try:
        return decoded_per_s(model, job.device, job.config.train.precision)
    except Exception as problem:
        warn(f"decoding could not be timed: {type(problem).__name__}: {first_line(problem)}")
        return None


def _evaluate(
    job: Job,
    model: nn.Module,
    split: Literal["valid", "test"],
    tally: UnitTally | None = None,
    *,
    ranks: Ranks | None = None,
) -> tuple[dict[str, float], int]:
    train = job.config.train
    return evaluate(
        model,
        job.task,
        split,
        batch_size=train.eval_batch_size,
        device=job.device,
        precision=train.precision,
        workers=loader_workers(job.task),
        tally=tally,
        ranks=ranks or job.ranks,
    )


def _close_tracking(job: Job, made: Record, tracker: Tracker, warn: Callable[[str], None]) -> None:
    """Tracking is a copy: whatever happens to it, the run has ended and its record is written."""
    later = f"the record is complete; send the rest later: suite upload {job.folder.name}"
    try:
        close_tracker(job, made, tracker)
    except Interrupted:
        warn(f"tracking: interrupted by a second signal; {later}")
    except Exception as problem:
        warn(f"tracking: {type(problem).__name__}: {first_line(problem)}; {later}")
