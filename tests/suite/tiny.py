"""Tiny runs on real data, and records made by hand."""

from __future__ import annotations

from typing import Any

import tasks
from suite.config.run_config import RunConfig
from suite.models.candidate import parse
from suite.models.certificate import Certificate
from suite.models.resolve import resolve, resolve_run
from suite.records.record import Code, Data, Hardware, Record, Timing

SHAPE = ("dim=32", "model.heads=2", "depth=2", "ffn_width=88", "batch_size=8")
SHORT = {
    "sotu": ("length=16", "valid_limit=16", "test_limit=16"),
    "fashion-mnist": ("patch=14", "eval_batch_size=500"),
    "household-power": ("horizon=8", "stride=16", "valid_limit=16", "test_limit=16"),
}
TASKS = tuple(SHORT)


def tiny_sets(task: str, *more: str) -> list[str]:
    """The `--set` values of a run of about a second: six steps, three validations."""
    return [*SHAPE, *SHORT[task], "steps=6", "evals=3", *more]


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


def made_record(
    mixer: str = "softmax",
    value: float = 0.5,
    *,
    task: str = "fashion-mnist",
    metric: str = "top1",
    higher: bool = True,
    seed: int = 0,
    name: str = "",
    status: str = "finished",
    matched: bool = True,
    sets: tuple[str, ...] = (),
    protocol: str = "",
    domain: str = "vision",
    valid: float | None = None,
) -> Record:
    """A record as a run would write it, with the test figure given and everything else plausible."""
    made = resolve_run(task=task, mixer=mixer, scale="board", seed=seed, sets=sets, unmatched=not matched)
    config = made.config
    if matched:
        plan = made.candidate.plan(config, tasks.get(task)(config.data).spec)
        config = config.model_copy(update={"mixer_options": plan.mixer_options})
    certificate: dict[str, Any] = {
        "matched": matched,
        "parameters": 1000,
        "reference_parameters": 1000,
        "ratio": 1.0,
        "flops": 90,
        "reference_flops": 100,
        "state_bytes": 0,
    }
    done = status == "finished"
    return Record(
        id=name or f"{mixer}-{seed}",
        status=status,
        created="2026-01-01T00:00:00+00:00",
        task=task,
        domain=domain,
        mixer=mixer,
        scale="board",
        seed=seed,
        identity=config.identity,
        group=config.group,
        config=config.canonical(),
        certificate=certificate,
        primary_metric=metric,
        higher_is_better=higher,
        metrics={"test": {metric: value}, "valid": {metric: value if valid is None else valid}} if done else {},
        data=Data(
            fingerprint="f" * 64, protocol=protocol or tasks.get(task).protocol, source="made", splits={"train": 1}
        ),
        code=Code(version="0", git_sha=None, git_dirty=None, mixer_origin="built-in"),
        versions={"torch": "0"},
        hardware=Hardware(platform="p", processor="c", cores=1, memory_bytes=1, device="cpu", threads=1),
        precision="fp32",
        timing=Timing(
            wall_s=1,
            start_s=1,
            step_s=1,
            data_s=0,
            evaluation_s=0,
            bookkeeping_s=0,
            data_share=0,
            bookkeeping_share=0,
            examples_per_s=10,
            steps_per_s=1,
        )
        if done
        else None,
        peak_memory_bytes=2**20,
    )
