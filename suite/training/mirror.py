"""What a run sends to tracking: parameters, tags, results, its record, and the board of its task. Tracking is a copy;
the record is authoritative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from suite.boards import board, publish
from suite.records import runs_folder
from suite.records.collection import read_all
from suite.records.record import NAME
from suite.records.schema import Record
from suite.tracking.client import Status, Tracker
from suite.training.job import Job

STATUS: Mapping[str, Status] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested mappings to dotted names."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def open_tracker(job: Job, warn: Callable[[str], None]) -> Tracker:
    """Starts tracking a run, or continues it when the run is resumed. Each task is one experiment."""
    config, certificate = job.config, job.certificate
    hybrid = f" (hybrid {','.join(map(str, config.hybrid))})" if config.hybrid else ""
    budget = certificate.model_dump(mode="json", exclude={"task", "scale", "mixer", "hybrid", "mixer_options"})
    return Tracker(
        home=runs_folder.home(),
        run_dir=job.folder,
        experiment=config.task_name,
        run_name=f"{config.mixer_name}{hybrid} · {config.scale} · seed {config.seed}",
        params=flatten({**config.portable(), "budget": budget}),
        tags={
            "mixer": config.mixer_name,
            "scale": config.scale,
            "seed": str(config.seed),
            "task": config.task_name,
            "domain": job.task.domain,
            "matched": str(certificate.matched).lower(),
            "identity": config.identity,
            "group": config.group,
            "run": job.folder.name,
            "data.fingerprint": job.task.fingerprint,
            "data.protocol": job.task.protocol,
        },
        warn=warn,
        resume=job.resume is not None,
    )


def close_tracker(job: Job, made: Record, tracker: Tracker) -> None:
    """Sends results, environment and the task's board, and ends the tracked run with the run's status."""
    metrics = {
        f"{split}/{name}": value
        for split in ("test", "test_skip")
        for name, value in made.metrics.get(split, {}).items()
    }
    if made.timing:
        metrics |= {f"time/{name}": value for name, value in made.timing.model_dump().items()}
    metrics |= publish.metrics_of_run(made, job.task.primary)
    tracker.summary({**metrics, "peak_memory_bytes": made.peak_memory_bytes})
    environment = {f"version.{name}": value for name, value in made.packages.items()} | {
        "git_sha": made.code.git_sha or "none"
    }
    hardware = {f"hardware.{name}": str(value) for name, value in made.hardware.model_dump().items()}
    tracker.set_tags({**environment, **hardware, "result": made.status, "error": made.error or ""})
    tracker.artifact_text(NAME, made.sealed().model_dump_json(by_alias=True, indent=1))
    found = read_all()
    others = [r for r in found.records if r.id != made.id]
    boards = board.boards([*others, made], found.refused, task=made.task)
    publish.publish(tracker, boards, job.task.primary)
    tracker.finish(STATUS[made.status])
