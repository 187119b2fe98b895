"""Pictures of a trained model, tracked after the run's record is written: nothing here may fail the run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from suite.errors import first_line
from suite.models.inputs import Backbone
from suite.tracking.client import Tracker
from suite.training.attention_maps import FIGURES, PICTURE, attention_maps, draw, write_indicators
from suite.training.evaluate import autocast, eval_mode
from suite.training.job import Job

Warn = Callable[[str], None]


def show_pictures(job: Job, tracker: Tracker, warn: Warn) -> None:
    """Tracks the attention maps of the tested model, where its mixers have any, and the task's own picture."""
    if job.selected is None:
        return
    if isinstance(job.selected, Backbone):
        _attempt("attention maps", warn, partial(_show_attention, job, job.selected, tracker))
    _attempt("test examples", warn, partial(_show_examples, job, job.selected, tracker))


def _attempt(what: str, warn: Warn, show: Callable[[], None]) -> None:
    try:
        show()
    except Exception as problem:
        warn(f"the {what} could not be drawn: {type(problem).__name__}: {first_line(problem)}")


def _show_attention(job: Job, model: Backbone, tracker: Tracker) -> None:
    maps = attention_maps(model, job.task, job.device)
    if maps:
        tracker.artifact_file(write_indicators(maps, job.folder / FIGURES))
        tracker.artifact_file(draw(maps, job.folder / PICTURE))


def _show_examples(job: Job, model: nn.Module, tracker: Tracker) -> None:
    @torch.no_grad()
    def predict(inputs: Tensor) -> Tensor:
        with eval_mode(model), autocast(job.device, job.config.train.precision):
            outputs: Tensor = model(inputs.to(job.device))
        return outputs.float().cpu()

    path = job.task.plot_examples(predict, job.folder)
    if path is not None:
        tracker.artifact_file(path)
