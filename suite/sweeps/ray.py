"""Runs of a sweep on a Ray cluster: each is a task with declared CPUs and GPUs, in a worker process of some machine."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from suite.errors import UserError, first_line
from suite.sweeps import cluster, ray_worker
from suite.sweeps.executor import Died, Failed, Key, Report, Step, Stopped, Work

PROBE_S = 120.0  # a worker's first import of the suite, from storage that may be slow


@dataclass
class RayExecutor:
    """Tasks of a Ray cluster.

    runs: at once; None for as many as the cluster's machines can hold when the sweep starts.
    threads: CPUs of each run, and its threads.
    gpus: of each run, from 0 to 1; None for one where there are GPUs and the device allows it.
    workers: processes of each that load data; None for the default.
    device: `auto`, `cpu` or `cuda`.
    home: the runs folder, which all machines share.
    log: file in it that receives what runs print.
    address: of a cluster, `auto` or `HOST:PORT`; None for one of its own on this machine.
    """

    runs: int | None
    threads: int
    gpus: float | None
    workers: int | None
    device: str
    home: Path
    log: Path
    address: str | None = None
    attempts: int = field(default=5, init=False)  # machines that may be taken away at any time are lost more often
    slots: int = field(default=1, init=False)

    def __enter__(self) -> Self:
        self._tasks: dict[Any, Key] = {}
        self._begun: set[Key] = set()
        with ExitStack() as stack:
            environment = self._environment()
            if self.address is None:
                stack.enter_context(cluster.started((self.runs or 1) * self.threads, environment))
            else:
                stack.enter_context(cluster.joined(self.address, environment))
            self._mark = self.home / f".sweep-{secrets.token_hex(8)}"
            self._mark.write_bytes(b"")
            stack.callback(self._mark.unlink, missing_ok=True)
            stack.push(self._cancel)
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start(self, key: Key, work: Work) -> None:
        """As `Executor.start`."""
        settings = ray_worker.Settings(
            self.threads, self.workers, self.device, self.log, self._mark, Path.cwd(), ray_worker.versions()
        )
        self._tasks[self._run.remote(key, work, settings, self._desk)] = key

    def reports(self, timeout_s: float) -> list[tuple[Key, Report]]:
        """As `Executor.reports`. Raises UserError where a machine cannot be used."""
        import ray

        ready, _ = ray.wait(list(self._tasks), num_returns=1, timeout=timeout_s)
        found = [(key, Step(*reached)) for key, reached in self._reached().items() if key in self._tasks.values()]
        return [*found, *((self._tasks.pop(task), _outcome(task)) for task in ready)]

    def stop(self) -> None:
        """As `Executor.stop`. Runs that wait for a machine are withdrawn."""
        import ray

        self._desk.stop.remote()
        for task, key in self._tasks.items():
            if key not in self._begun:
                ray.cancel(task)

    def _environment(self) -> dict[str, str]:
        """What a run reads, as this process would read it. Ray leaves one thread to runs without a setting."""
        own = {name: value for name, value in os.environ.items() if name.startswith("SUITE_")}
        tracking = "off" if own.get("SUITE_TRACKING") == "off" else "later"  # this process delivers
        return own | {
            "SUITE_HOME": str(self.home),
            "SUITE_TRACKING": tracking,
            "OMP_NUM_THREADS": str(self.threads),
        }

    def _open(self) -> None:
        """Checks the cluster's machines, and creates what sends messages to and from runs."""
        import ray

        machines = [node for node in ray.nodes() if node["Alive"]]
        gpus = self._gpus(machines)
        fits = self._fits(machines, gpus)
        if fits == 0 and (self.runs is None or self.address is None):
            needs = f"{self.threads} CPU{'s' if self.threads > 1 else ''}" + (f" and {gpus:g} GPU" if gpus else "")
            growing = ", or give --jobs N for a cluster that grows" if self.address else ""
            raise UserError(
                f"no machine of the Ray cluster has the {needs} of a run; lower --threads or --gpus-per-run{growing}"
            )
        self.slots = self.runs or fits
        self._probe(machines)
        self._desk = ray.remote(num_cpus=0, max_restarts=-1)(ray_worker.Desk).options(**_at_driver()).remote()
        options = {"num_cpus": self.threads, "num_gpus": gpus, "max_retries": 0}
        self._run = ray.remote(**options)(ray_worker.run)
        self._asked = self._desk.reached.remote()

    def _gpus(self, machines: list[dict[str, Any]]) -> float:
        there = any(machine["Resources"].get("GPU") for machine in machines)
        if self.gpus is None:
            return float(self.device == "cuda" or (self.device == "auto" and there))
        return self.gpus

    def _fits(self, machines: list[dict[str, Any]], gpus: float) -> int:
        """How many runs all machines hold at once."""
        counts = []
        for machine in machines:
            cpus, there = machine["Resources"].get("CPU", 0.0), machine["Resources"].get("GPU", 0.0)
            # a fraction of a GPU is part of one of them
            by_gpu = int(there) * int(1 / gpus + 1e-9) if gpus else int(cpus)
            counts.append(min(int(cpus // self.threads), by_gpu))
        return sum(counts)

    def _probe(self, machines: list[dict[str, Any]]) -> None:
        """Raises UserError for the first machine that does not see the runs folder, or has another version."""
        import ray

        check = ray.remote(num_cpus=0, max_retries=0)(ray_worker.obstacle)
        tasks = {}
        for machine in machines:
            strategy = _only_at(machine["NodeID"])
            task = check.options(scheduling_strategy=strategy).remote(self._mark, ray_worker.versions())
            tasks[task] = machine["NodeManagerHostname"]
        for task, name in tasks.items():
            try:
                if found := ray.get(task, timeout=PROBE_S):
                    raise UserError(found)
            except ray.exceptions.RayTaskError as error:
                raise UserError(
                    f"{name}: its Ray workers cannot import the suite ({first_line(error.cause or error)}); install "
                    "the same mixer-suite on every machine"
                ) from None
            except ray.exceptions.RayError as error:
                raise UserError(f"{name}: its Ray workers do not work: {first_line(error)}") from None

    def _reached(self) -> dict[Key, tuple[int, int]]:
        """The steps that runs have reached since the last call, as far as they are known here."""
        import ray

        if not ray.wait([self._asked], timeout=0)[0]:
            return {}
        try:
            found: dict[Key, tuple[int, int]] = ray.get(self._asked)
        except ray.exceptions.RayError:  # it starts again
            found = {}
        self._asked = self._desk.reached.remote()
        self._begun |= found.keys()
        return found

    def _cancel(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends runs that are left after an exception, such as a second Ctrl-C."""
        import ray

        for task in self._tasks:
            ray.cancel(task, force=True)


def _outcome(task: Any) -> Report:
    import ray

    try:
        found: Report | ray_worker.Unusable = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return Stopped()
    except ray.exceptions.RayTaskError as error:
        return Failed(first_line(error.cause or error))
    except ray.exceptions.RayError as error:
        return Died(f"its worker was lost: {first_line(error)}")
    if isinstance(found, ray_worker.Unusable):
        raise UserError(found.reason)
    return found


def _only_at(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _at_driver() -> dict[str, Any]:
    """Where this process is: the machine whose loss ends the sweep anyway."""
    import ray

    return {"scheduling_strategy": _only_at(ray.get_runtime_context().get_node_id())}
