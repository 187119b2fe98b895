"""RunConfig: everything that decides a run's result, frozen and strict, with its identity hash.

Paths, devices and tracking are not part of it: they must not change a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from backbones.mixers.config import MixerConfig
from backbones.options import CanonPlaces
from suite.config.identity import digest, introduced, significant, without
from tasks.base import TaskOptions

MAX_WIDTH, MAX_DEPTH = 2**16, 1024  # larger models are refused before anything is built
TRACE_POINTS = 200  # training losses that a record keeps


class Strict(BaseModel):
    """Frozen; unknown fields and infinite numbers are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Strict):
    """The backbone's shape; the mixer's widths and the feed-forward width of its layers are solved from it."""

    dim: int = Field(default=128, ge=8, le=MAX_WIDTH, description="model width D")
    depth: int = Field(default=4, ge=1, le=MAX_DEPTH, description="number of layers")
    heads: int = Field(
        default=4, ge=1, le=MAX_WIDTH, description="heads of the softmax reference, and the default of other mixers"
    )
    ffn_width: int = Field(
        default=344, ge=8, le=16 * MAX_WIDTH, description="feed-forward width F of the softmax reference (about 8D/3)"
    )
    drop_path: float = Field(
        default=0.0, ge=0, lt=1, description="stochastic depth rate of the last layer; it rises from 0 at the first"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the output of each sublayer")
    embedding_std: float = Field(
        default=0.02, gt=0, description="standard deviation of initial token embeddings (text and recall)"
    )
    head_scale: float = Field(
        default=1.0, ge=0, description="scale of a forecaster's initial head; 0: it first predicts the window's mean"
    )

    width_factor: float = introduced(
        1.0,
        ge=0.25,
        le=4,
        description="parameters as a multiple of the reference's, by the model's width; other than 1, it never ranks",
    )
    canon: CanonPlaces = introduced(
        "none",
        description="short convolutions of 4 taps for any mixer: A on the mixer's input, C on the feed-forward layer's",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim {self.dim} must be an even multiple of heads {self.heads}")
        return self

    @property
    def widened(self) -> ModelConfig:
        """The shape whose layers have `width_factor` times the parameters: D grows with its square root, to the nearest
        even multiple of the heads, and F so that 3DF grows with the factor.
        """
        if self.width_factor == 1:
            return self
        step = 2 * self.heads
        dim = max(round(self.dim * self.width_factor**0.5 / step), 1) * step
        ffn_width = max(round(self.width_factor * self.dim * self.ffn_width / dim), 1)
        return self.model_copy(update={"dim": dim, "ffn_width": ffn_width, "width_factor": 1.0})


class TrainConfig(Strict):
    """Optimisation: AdamW, cosine with warm-up, gradient clipping."""

    steps: int = Field(default=1000, ge=1, le=10**9, description="optimiser steps")
    batch_size: int = Field(default=32, ge=1, le=2**20, description="sequences, images or windows per step")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.1, ge=0, description="on matrices only")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    warmup: float = Field(
        default=0.05, ge=0, le=1, description="fraction of the steps in which the learning rate rises"
    )
    min_lr: float = Field(default=0.02, ge=0, le=1, description="final learning rate as a fraction of the peak")
    clip: float = Field(default=1.0, gt=0, description="gradient clipping threshold (norm)")
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the averaged weights, which are evaluated instead; 0: no averaging",
    )
    evals: int = Field(
        default=8, ge=1, le=10**6, description="validations (and checkpoints) per run; the best one is tested"
    )
    accumulate: int = introduced(
        1,
        ge=1,
        le=2**20,
        description="parts that each batch is computed in, one after the other: less memory, same result",
    )
    eval_batch_size: int = Field(default=64, ge=1, le=2**20, description="examples per batch in evaluation")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast on a GPU that is fast at it, fp32 on a CPU"
    )

    @model_validator(mode="after")
    def _parts_have_rows(self) -> TrainConfig:
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate {self.accumulate} must be at most batch_size {self.batch_size}")
        return self

    def validates_after(self, step: int) -> bool:
        """Whether a run validates after a step: `evals` times, evenly spaced, the last step included. Only such a step
        can be selected.

        Args:
            step: counted from 1.

        Returns:
            True where it validates.
        """
        k = step * self.evals // self.steps
        return step > 0 and any(
            1 <= near <= self.evals and round(near * self.steps / self.evals) == step for near in (k - 1, k, k + 1)
        )

    @property
    def trace_steps(self) -> tuple[int, ...]:
        """The steps whose training loss a record keeps: the first, and about TRACE_POINTS evenly spaced ones."""
        every = max(1, self.steps // TRACE_POINTS)
        return tuple(sorted({1, *range(every, self.steps + 1, every)}))


#: The version of the training loop. Raise it when the same config gives other results: records of earlier versions then
#: have separate boards.
TRAINING_VERSION = 1

BUILT_IN = "built-in"
#: Origins of what ships with the suite; anything else is a third party's.
OWN_ORIGINS = (BUILT_IN, "baseline")

#: Options of training that validation may choose for each mixer.
TUNED = ("lr", "weight_decay")
#: Options that distinguish the rows of a board. The width factor of the softmax parameter curve and `canon`, the same
#: short convolution for any mixer, are among them, so that such rows are compared with the others.
OF_A_ROW = ("mixer", "mixer_origin", "mixer_options", "hybrid", "unmatched", "model.canon", "model.width_factor")
#: Options that distinguish the runs of a row.
OF_A_RUN = ("seed", "skip_variant_layers", "train.accumulate")


class RunConfig(Strict):
    """One run. `hybrid` lists the layers, counted from 1, that keep softmax (resolved, never a layout's name)."""

    task: str
    task_origin: str = BUILT_IN  # of a file: its name and the hash of its content
    scale: str
    seed: int = Field(default=0, ge=0, lt=2**31)
    mixer: str
    mixer_origin: str = BUILT_IN  # as for the task
    data: SerializeAsAny[TaskOptions]
    mixer_options: SerializeAsAny[MixerConfig]
    hybrid: tuple[int, ...] = ()
    unmatched: bool = False
    skip_variant_layers: bool = False
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    def canonical(self) -> dict[str, Any]:
        """The whole config, to run it again on this machine.

        Returns:
            Plain JSON values, paths included.
        """
        return self.model_dump(mode="json")

    def portable(self) -> dict[str, Any]:
        """The config without a path of this machine: a file counts by its name and its content.

        Returns:
            Plain JSON values.
        """
        return {**self.canonical(), "task": self.task_name, "mixer": self.mixer_name, "data": self.data.portable()}

    def recorded(self) -> dict[str, Any]:
        """The config as records hold it and the identity covers it: portable, without the options that have the value
        they were introduced with. A third party's own options are all kept.

        Returns:
            Plain JSON values.
        """
        data = type(self.data) if self.task_origin in OWN_ORIGINS else TaskOptions
        mixer = type(self.mixer_options) if self.mixer_origin in OWN_ORIGINS else MixerConfig
        models = {"data": data, "mixer_options": mixer, "model": type(self.model), "train": type(self.train)}
        values = self.portable()
        sections = {name: significant(values[name], model) for name, model in models.items()}
        return significant({**values, **sections}, type(self))

    @property
    def tuned(self) -> tuple[str, ...]:
        """Options that validation may choose for each mixer, as `section.option`. A third party's task has none in its
        data: that needs its code.
        """
        data = sorted(self.data.tuned()) if self.task_origin in OWN_ORIGINS else []
        return (*(f"train.{name}" for name in TUNED), *(f"data.{name}" for name in data))

    @property
    def identity(self) -> str:
        """sha256 over every option that can change a result."""
        return digest(self.recorded())

    @property
    def group(self) -> str:
        """sha256 over the options that are the same for all runs of a board."""
        return digest(without(self.recorded(), (*OF_A_ROW, *OF_A_RUN, *self.tuned)))

    @property
    def mixer_name(self) -> str:
        """The mixer's name; for `path/file.py:Class`, the file's own name and the class."""
        return without_folder(self.mixer)

    @property
    def task_name(self) -> str:
        """The task's name; for `path/file.py:Class`, the file's own name and the class."""
        return without_folder(self.task)


def without_folder(name: str) -> str:
    """A task's or mixer's name as records hold it.

    Args:
        name: a registered name, or `path/file.py:Class`.

    Returns:
        The name; of a file, its own name and the class.
    """
    return Path(name).name if ".py:" in name else name
