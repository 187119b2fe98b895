"""From command-line options to what carries out a sweep's runs."""

from __future__ import annotations

from dataclasses import dataclass

from suite.errors import UserError
from suite.records import runs_folder
from suite.sweeps.executor import Executor, Settings
from suite.sweeps.local import LocalExecutor
from suite.sweeps.on_ray import cluster
from tasks.storage.cores import cores


@dataclass(frozen=True)
class Options:
    """Options that say where and how runs are executed; None for those that were not given.

    on: `local` or `ray`.
    address: of a Ray cluster.
    gpus: of each run on Ray.
    jobs: runs at once.
    threads: of each.
    workers: processes of each that load data.
    device: as `suite run --device`.
    deterministic: as `suite run --deterministic`.
    """

    on: str = "local"
    address: str | None = None
    gpus: float | None = None
    jobs: int | None = None
    threads: int | None = None
    workers: int | None = None
    device: str = "auto"
    deterministic: bool = False


def executor(options: Options) -> Executor:
    """What carries out a sweep's runs; it has not started anything.

    Args:
        options: of the command.

    Returns:
        An executor that has not been entered.

    Raises:
        UserError: two options exclude each other, or Ray is not installed.
    """
    home, jobs = runs_folder.home(), options.jobs or 1
    share = 1 if options.address else max(1, cores() // jobs)
    settings = Settings(options.threads or share, options.workers, options.device, options.deterministic)
    if options.on == "local":
        _refuse_options_of_ray(options)
        return LocalExecutor(jobs, settings, home / "sweep.log")
    _check_devices(options)
    cluster.require_ray()
    from suite.sweeps.on_ray.executor import RayExecutor

    at_once = options.jobs if options.address else jobs
    return RayExecutor(at_once, settings, options.gpus, home, home / "sweep.log", options.address)


def written(options: Options) -> list[str]:
    """The options as words of each command of a plan.

    Args:
        options: of the command that writes the plan.

    Returns:
        Words; none for options that have their default.

    Raises:
        UserError: they are for a sweep that runs.
    """
    if options.on == "ray":
        raise UserError("--plan writes commands and --on ray runs them; give one of the two")
    _refuse_options_of_ray(options)
    words = [] if options.device == "auto" else ["--device", options.device]
    for name, value in (("--jobs", options.jobs), ("--threads", options.threads), ("--workers", options.workers)):
        words += [] if value is None else [name, str(value)]
    return [*words, "--deterministic"] if options.deterministic else words


def _refuse_options_of_ray(options: Options) -> None:
    for name, value in (("--address", options.address), ("--gpus-per-run", options.gpus)):
        if value is not None:
            raise UserError(f"{name} {value}: runs are on this machine; add --on ray, or leave {name} out")


def _check_devices(options: Options) -> None:
    device, gpus = options.device, options.gpus
    if device.startswith("cuda:"):
        raise UserError(f"--device {device[:80]!r}: Ray chooses the GPU of each run; give cuda")
    if device == "cpu" and gpus:
        raise UserError(f"--gpus-per-run {gpus:g}: runs with --device cpu use no GPU; leave one of the two out")
    if device == "cuda" and gpus == 0:
        raise UserError("--gpus-per-run 0: runs with --device cuda need a part of a GPU; give one, or --device cpu")
