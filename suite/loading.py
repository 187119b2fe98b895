"""The trained model of a run, of any domain, ready to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import tasks
from suite.config.run_config import RunConfig
from suite.console import warn
from suite.errors import UserError
from suite.models.candidate import Candidate
from suite.models.inputs import adapter
from suite.models.written import resolve_written
from suite.records import runs_folder
from suite.training import checkpoint
from suite.training.devices import pick_device
from suite.training.evaluate import autocast, eval_mode
from tasks.base import Task


@dataclass(frozen=True)
class Loaded:
    """A trained model with the task that it was trained on.

    folder: of the run.
    config: the run's.
    task: the run's task with its options, and with what the run kept of it (a tokenizer, say). `task.load()` reads its
        data.
    model: the model of the checkpoint that validation selected, in evaluation mode.
    device: that it is on.
    step: of that checkpoint.
    """

    folder: Path
    config: RunConfig
    task: Task
    model: nn.Module
    device: torch.device
    step: int

    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        """The model's outputs as the run's evaluation computed them.

        Args:
            inputs: of a batch of the task: token ids `[B, T]`, images `[B, channels, height, width]` as the task
                normalises them, or standardised windows `[B, look-back, channels]`.

        Returns:
            Logits `[B, T, vocabulary]` or `[B, classes]`, or forecasts `[B, horizon, channels]`; fp32, on the CPU.
        """
        with torch.no_grad(), eval_mode(self.model), autocast(self.device, self.config.train.precision):
            outputs: torch.Tensor = self.model(inputs.to(self.device))
        return outputs.float().cpu()


def load(
    run: str | Path,
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    with_data: bool = True,
    check: Callable[[Task], str] | None = None,
) -> Loaded:
    """Loads the model of a run. A mixer or task of the user's own is executed only as it was recorded.

    Args:
        run: its id, any unique part of it, its folder, or `latest`.
        device: `auto`, `cpu` or `cuda:N`.
        data_dir: where its data are now; None: where they were.
        with_data: whether the task's data are read and compared with those of the run. Without them its batches cannot
            be used, and a task whose data decide the shape of the model cannot be loaded.
        check: refuses a task before anything is loaded: it returns the reason, or an empty text.

    Returns:
        The model and its task.

    Raises:
        UserError: there is no such run, it has no undamaged checkpoint, or its data or code have changed.
        DataError: its data are missing or damaged.
        MixerError: its mixer does not exist here.
    """
    folder, chosen = runs_folder.find_run(str(run)), pick_device(device)
    written = runs_folder.read_run(folder)
    resolved = resolve_written(written["config"])
    config, candidate = resolved.config, resolved.candidate
    place = data_dir or (Path(written["data_dir"]) if written["data_dir"] else None)
    task = tasks.get(config.task)(config.data, place)
    if check and (reason := check(task)):
        raise UserError(f"run {folder.name} is of task {config.task!r} ({task.domain}); {reason}")
    task.use_files(folder)
    if with_data:
        task.load()
    state = checkpoint.load(folder, chosen, warn)
    if with_data and state["origin"]["data"] != task.fingerprint:
        raise UserError(f"run {folder.name}: its data have changed since it was trained; pass --data-dir with the same")
    model = _built(candidate, config, task, with_data=with_data).to(chosen)
    best = state["best"]["weights"]
    model.load_state_dict(best or state["model"])
    return Loaded(folder, config, task, model.eval(), chosen, state["best"]["step"] if best else state["step"])


def _built(candidate: Candidate, config: RunConfig, task: Task, *, with_data: bool) -> nn.Module:
    """The model before its weights are loaded. Without data, a constant sequence comes from the weights alone."""
    plan = candidate.plan(config, task.spec)
    if with_data or not plan.layers:
        return candidate.build(config, task, plan)
    return adapter(task.spec).backbone(plan.shape, plan.layers)
