"""Tiny runs on real data, and records made by hand."""

from __future__ import annotations

import math
from typing import Any

import tasks
from suite.config.run_config import OWN_ORIGINS, RunConfig
from suite.models.candidate import Candidate, parse
from suite.models.certificate import Certificate
from suite.models.resolve import resolve, resolve_run
from suite.records.checks import recount
from suite.records.schema import Code, Data, Hardware, Record, Selection, Status, Timing, Versions
from tasks.base import Task

SHAPE = ("dim=32", "model.heads=2", "depth=2", "ffn_width=88", "batch_size=8")
SHORT = {
    "sotu": ("length=16", "valid_limit=16", "test_limit=16"),
    "fashion-mnist": ("patch=14", "eval_batch_size=500"),
    "household-power": ("horizon=8", "stride=16", "valid_limit=16", "test_limit=16"),
}
TASKS = tuple(SHORT)
#: `--set` values of short runs of `mqar`.
RECALL = ("length=32", "pairs=4", "train_examples=256", "valid_examples=16", "test_examples=16")


def tiny_sets(task: str, *more: str) -> list[str]:
    """The `--set` values of a run of about a second: six steps, three validations."""
    return [*SHAPE, *SHORT.get(task, ()), "steps=6", "evals=3", *more]


def tiny_arguments(task: str, mixer: str = "softmax", *more: str) -> list[str]:
    """The command line of a tiny run; `more` are `--set` values."""
    sets = [part for value in tiny_sets(task, *more) for part in ("--set", value)]
    return ["run", "--task", task, "--mixer", mixer, "--scale", "board", "--device", "cpu", *sets]


def tiny_config(task: str, mixer: str = "softmax", *more: str, seed: int = 0) -> RunConfig:
    return resolve(task=task, mixer=mixer, scale="board", seed=seed, sets=tiny_sets(task, *more))


def certify(config: RunConfig) -> Certificate:
    """The certificate of a run, matched or not. Needs no data."""
    candidate, spec = parse(config.mixer), tasks.get(config.task)(config.data).spec
    return candidate.certify(config, spec, candidate.plan(config, spec))


def _certificate(config: RunConfig, candidate: Candidate) -> dict[str, Any]:
    """Of a mixer in a file, as its run records it."""
    spec = tasks.get(config.task)(config.data).spec
    if config.mixer_origin in OWN_ORIGINS:
        return recount.certificate(config, spec)
    counted = candidate.certify(config, spec, candidate.plan(config, spec)).model_dump(mode="json")
    return {**counted, "mixer": config.mixer_name, "mixer_options": config.recorded()["mixer_options"]}


def figures(task: Task, value: float) -> dict[str, float]:
    """The metrics of a split with a given result: 0.5, or what follows from it."""
    primary = task.primary.name
    found = dict.fromkeys((metric.name for metric in task.metrics), 0.5) | {primary: value}
    if primary == "bits_per_byte":
        found["loss"] = value * math.log(2)
    return found | {name: other for name, other in task.implied(found).items() if name != primary}


def made_record(
    mixer: str = "softmax",
    value: float = 0.5,
    *,
    task: str = "fashion-mnist",
    seed: int = 0,
    name: str = "",
    status: Status = "finished",
    matched: bool = True,
    sets: tuple[str, ...] = (),
    task_version: int = 0,
    valid: float | None = None,
    scale: str = "board",
) -> Record:
    """A record as a run would write it, with a given test result; everything else agrees with the config."""
    asked = resolve_run(task=task, mixer=mixer, scale=scale, seed=seed, sets=sets, unmatched=not matched)
    the_task = tasks.get(task)(asked.config.data)
    plan = asked.candidate.plan(asked.config, the_task.spec)
    config = asked.config.model_copy(update={"mixer_options": plan.mixer_options})
    done, train = status == "finished", config.train
    by_split = {
        "test": figures(the_task, value),
        "valid": figures(the_task, value if valid is None else valid),
    }
    limits = {split: getattr(config.data, f"{split}_limit", 0) for split in ("valid", "test")}
    examples = {split: limit or 2000 for split, limit in limits.items()}
    return Record(
        id=name or f"{mixer.replace('/', '-')}-{seed}",
        status=status,
        error=None if done else "the reason",
        created="2026-01-01T00:00:00+00:00",
        task=task,
        domain=the_task.domain,
        mixer=config.mixer_name,
        scale=scale,
        seed=seed,
        identity=config.identity,
        group=config.group,
        versions=Versions(task=task_version or the_task.version, mixer=asked.candidate.version, training=1),
        config=config.recorded(),
        spec=the_task.spec,
        certificate=_certificate(config, asked.candidate),
        primary_metric=the_task.primary.name,
        higher_is_better=the_task.primary.higher_is_better,
        metrics={**by_split, "valid_last": by_split["valid"]} if done else {},
        n_evaluated=examples if done else {},
        selection=Selection(
            step=train.steps, metric=the_task.primary.name, value=by_split["valid"][the_task.primary.name]
        )
        if done
        else None,
        loss_trace=[(step, 1 / step) for step in train.trace_steps],
        data=Data(
            fingerprint="f" * 64,
            protocol=the_task.protocol,
            source="made",
            unit="images",
            splits={"train": 4500, **examples},
            details={},
        ),
        code=Code(
            version="0", git_sha=None, git_dirty=None, task_origin=config.task_origin, mixer_origin=config.mixer_origin
        ),
        packages={"torch": "0"},
        hardware=Hardware(platform="p", processor="c", cores=1, memory_bytes=1, device="cpu", threads=1),
        precision="fp32",
        implementations={"cpu": "pytorch"},
        resumed_at=[],
        timing=Timing(
            wall_s=1,
            start_s=1,
            step_s=1,
            data_s=0,
            evaluation_s=0,
            bookkeeping_s=0,
            data_share=0,
            bookkeeping_share=0,
            examples_per_s=train.steps * train.batch_size,
            steps_per_s=train.steps,
        )
        if done
        else None,
        peak_memory_bytes=2**20,
    )
