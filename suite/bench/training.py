"""Comparisons of training steps at `quick` scale: forward, loss, backward, clipping and AdamW on real batches; their
time relative to softmax, to bf16 and to a plain PyTorch model of equal parameters, the fraction of the processor's FLOP
rate that they reach, and what more threads give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

import tasks
from kernels.cpu import limits
from suite.bench.comparison import Comparison, Requirement
from suite.bench.plain_models import TITLES, count, plain_model
from suite.bench.timing import Workload
from suite.config.run_config import TrainConfig
from suite.models.inputs import adapter
from suite.models.masked import masked_flops as superfluous
from suite.models.resolve import Resolved, resolve_run
from suite.training.evaluate import autocast
from suite.training.optimisation import make_optimizer, parameter_groups
from tasks.base import Batch, Task

#: The timed tasks, with the smallest fraction of the multiply-add limit that softmax must reach.
TASKS: Mapping[str, float] = {"sotu": 0.75, "fashion-mnist": 0.65, "household-power": 0.60}
#: Rows and columns of the square matrices whose product measures the machine's FLOP rate.
PRODUCT = 1024
#: The competitor that does nothing but multiply and add on registers.
LIMIT = "multiply-add limit"
#: The competitor that is the same step under bf16 autocast.
BF16 = "the same in bf16"
#: Speed over that on one thread which a step must reach, by the number of threads.
SCALING: Mapping[int, float] = {2: 1.6}
#: Required speed of softmax on one thread over the plain model of the task, with either of its optimizers.
PLAIN_SPEEDS: Mapping[str, float] = {"sotu": 1.15, "fashion-mnist": 1.25, "household-power": 1.3}
#: PyTorch's fast implementations of AdamW, as arguments of it.
OPTIMIZERS = ("fused", "foreach")


def masked_flops(resolved: Resolved, task: Task) -> int:
    """The counted FLOPs of a run that a causal mask makes superfluous, per unit of the task."""
    plan, _ = resolved.candidate.check(resolved.config, task.spec)
    return superfluous(task.spec, plan.shape.dim, plan.layers)


def matrix_product() -> Workload:
    a, b = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
    return lambda: a @ b


def training_step(resolved: Resolved, task: Task, batch: Batch, precision: str = "fp32") -> Workload:
    model = built(resolved, task)
    optimizer = make_optimizer(model, resolved.config.train)
    return step_of(model, optimizer, task, batch, resolved.config.train.clip, precision)


def built(resolved: Resolved, task: Task) -> nn.Module:
    """Our model of a run, with the initial weights of seed 0."""
    plan, _ = resolved.candidate.check(resolved.config, task.spec)
    torch.manual_seed(0)
    return resolved.candidate.build(resolved.config, task, plan)


def step_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    batch: Batch,
    clip: float,
    precision: str = "fp32",
) -> Workload:
    """One update of a model on a batch."""

    def step() -> None:
        with autocast(torch.device("cpu"), precision):
            outputs = model(batch.inputs)
        task.loss(outputs.float(), batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def plain_name(task: Task, optimizer: str) -> str:
    """What reports call the plain model of a task under one of `OPTIMIZERS`."""
    return f"{TITLES[task.spec.kind]}, {optimizer} AdamW"


def plain_step(model: nn.Module, task: Task, batch: Batch, train: TrainConfig, optimizer: str) -> Workload:
    """The step of a plain model with our optimizer settings, by PyTorch's own AdamW.

    Args:
        model: the plain model.
        task: gives the loss.
        batch: what is trained on.
        train: learning rate, weight decay, β₁, β₂, clipping.
        optimizer: one of `OPTIMIZERS`.

    Returns:
        One update.
    """
    groups, betas = parameter_groups(model, train.weight_decay), (train.beta1, train.beta2)
    adam = torch.optim.AdamW(groups, train.lr, betas, weight_decay=0.0, **{optimizer: True})
    return step_of(model, adam, task, batch, train.clip)


def plain_steps(resolved: Resolved, task: Task, batch: Batch) -> dict[str, Workload]:
    """The steps of the plain model of a task, by name. Raises ValueError where its parameters are not ours."""
    config, ours = resolved.config, count(built(resolved, task))
    return {
        plain_name(task, optimizer): plain_step(
            plain_model(task.spec, config.model, ours), task, batch, config.train, optimizer
        )
        for optimizer in OPTIMIZERS
    }


def on_one_thread(step: Workload) -> Workload:
    def call() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            step()
        finally:
            torch.set_num_threads(threads)

    return call


def training_comparison(name: str, mixer: str) -> Comparison:
    resolved = resolve_run(task=name, mixer=mixer, scale="quick")
    config = resolved.config
    task = tasks.get(name)(config.data)
    _, certificate = resolved.candidate.check(config, task.spec)
    inputs, batch_size = adapter(task.spec), config.train.batch_size
    length = inputs.length
    units = batch_size * length if certificate.flops_unit == "token" else batch_size
    threads = torch.get_num_threads()
    flops = 3 * units * (certificate.flops - masked_flops(resolved, task))  # backward costs twice forward
    limit = limits.multiply_adds()

    def build() -> Mapping[str, Workload]:
        task.load()
        batch = next(task.train_batches(0, batch_size))
        reference = resolve_run(task=name, mixer="softmax", scale="quick")
        step = training_step(resolved, task, batch)
        one = {"one thread": on_one_thread(step)} if threads > 1 else {}
        return {
            "ours": step,
            "softmax": training_step(reference, task, batch),
            BF16: training_step(resolved, task, batch, "bf16"),
            "matrix product": matrix_product(),
            **({LIMIT: limit[0]} if limit else {}),
            **one,
            **(plain_steps(resolved, task, batch) if mixer == "softmax" else {}),
        }

    utilisation = Requirement("mfu", "matrix product", work=flops / (2 * PRODUCT**3))
    of_limit = Requirement("mfu", LIMIT, TASKS[name] if mixer == "softmax" else None, flops / limit[1] if limit else 0)
    about = (
        f"{units:,} {certificate.flops_unit}s per step, {flops / 1e9:.1f} GFLOP without masked products; "
        f"positions: {inputs.positions}"
    )
    scaling = Requirement("speed", "one thread", SCALING.get(threads))
    requirements = [of_limit, utilisation, Requirement("price", "softmax"), Requirement("price", BF16), scaling]
    if mixer == "softmax":
        ours = count(built(resolved, task))
        theirs = count(plain_model(task.spec, config.model, ours))
        about += f"; parameters: {ours:,}, {TITLES[task.spec.kind]} {theirs:,}"
        bound = PLAIN_SPEEDS[name] if threads == 1 else None
        requirements += [Requirement("speed", plain_name(task, optimizer), bound) for optimizer in OPTIMIZERS]
    return Comparison(f"{mixer} on {name}", length, build, tuple(requirements), about)


def training_comparisons(mixers: Sequence[str]) -> Iterator[Comparison]:
    for name in TASKS:
        for mixer in mixers or ("softmax", "fem"):
            yield training_comparison(name, mixer)
