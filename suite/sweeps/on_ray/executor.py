"""Runs of a sweep on a Ray cluster: each is a task with declared CPUs and GPUs, in a worker process of some machine."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from suite.errors import UserError, first_line
from suite.sweeps.executor import Died, Failed, Key, Report, Settings, Step, Stopped, Work
from suite.sweeps.on_ray import cluster, desk, machines, worker
from suite.sweeps.worker import opened_log

WAITING = (
    "GOMP_SPINCOUNT",
    "OMP_WAIT_POLICY",
)  # how idle threads wait, which a running cluster's workers do not inherit


@dataclass
class RayExecutor:
    """Tasks of a Ray cluster.

    runs: at once; None for as many as the cluster's machines can hold when the sweep starts.
    settings: of all runs; each declares as many CPUs as it has threads.
    gpus: of each run, from 0 to 1; None for one where there are GPUs and the device allows it.
    home: the runs folder, which all machines share.
    log: file in it that receives what runs print.
    address: of a cluster, `auto` or `HOST:PORT`; None for one of its own on this machine.
    """

    runs: int | None
    settings: Settings
    gpus: float | None
    home: Path
    log: Path
    address: str | None = None
    attempts: int = field(default=5, init=False)  # machines that may be taken away at any time are lost more often
    slots: int = field(default=1, init=False)

    def __enter__(self) -> Self:
        self._tasks: dict[Any, Key] = {}
        self._begun: set[Key] = set()
        with ExitStack() as stack:
            log = stack.enter_context(os.fdopen(opened_log(self.log), "a", encoding="utf-8"))
            stack.enter_context(redirect_stdout(log))  # Ray prints its errors there, into tables and JSON documents
            environment = self._environment()
            if self.address is None:
                cpus = (self.runs or 1) * self.settings.threads
                self._cluster = stack.enter_context(cluster.started(cpus, environment))
            else:
                self._cluster = stack.enter_context(cluster.joined(self.address, environment))
            mark = self.home / f".sweep-{secrets.token_hex(8)}"
            mark.write_bytes(b"")
            stack.callback(mark.unlink, missing_ok=True)
            self._site = worker.Site(self.log, mark, Path.cwd(), worker.versions())
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
        self._begun.discard(key)  # of an earlier attempt
        self._tasks[self._run.remote(key, work, self._execution, self._site, self._desk)] = key

    def reports(self, timeout_s: float) -> list[tuple[Key, Report]]:
        """As `Executor.reports`. Raises UserError where the cluster is lost or a machine cannot be used."""
        import ray

        self._cluster.check()
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
        from suite.training.deterministic.mode import WORKSPACES

        own = {name: value for name, value in os.environ.items() if name.startswith("SUITE_") or name in WAITING}
        if self.settings.deterministic:  # read once in a worker, which carries out several runs
            own["CUBLAS_WORKSPACE_CONFIG"] = os.environ.get("CUBLAS_WORKSPACE_CONFIG", WORKSPACES[0])
        tracking = "off" if own.get("SUITE_TRACKING") == "off" else "later"  # this process delivers
        threads = str(self.settings.threads)
        return own | {"SUITE_HOME": str(self.home), "SUITE_TRACKING": tracking, "OMP_NUM_THREADS": threads}

    def _open(self) -> None:
        """Checks the cluster's machines, and creates what sends messages to and from runs."""
        import ray

        there, cpus = machines.alive(), self.settings.threads
        gpus = self._gpus_of_each(machines.have_gpus(there))
        fits = machines.runs_at_once(there, cpus, gpus)
        if fits == 0 and (self.runs is None or self.address is None):
            needs = f"{cpus} CPU{'s' if cpus > 1 else ''}" + (f" and {gpus:g} GPU" if gpus else "")
            growing = ", or give --jobs N for a cluster that grows" if self.address else ""
            raise UserError(
                f"no machine of the Ray cluster has the {needs} of a run; lower --threads or --gpus-per-run{growing}"
            )
        self.slots = self.runs or fits
        machines.check(there, self._site.mark, self._site.versions)
        # a run that has a GPU must not compute without it, and one without must not take one
        self._execution = replace(self.settings, device="cuda" if gpus else "cpu")
        here = machines.only_at(ray.get_runtime_context().get_node_id())  # whose loss ends the sweep anyway
        actor = ray.remote(num_cpus=0, max_restarts=-1)(desk.Desk)
        self._desk = actor.options(scheduling_strategy=here).remote()
        self._run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(worker.run)
        self._asked = self._desk.reached.remote()

    def _gpus_of_each(self, there: bool) -> float:
        if self.gpus is not None:
            return self.gpus
        return float(self.settings.device == "cuda" or (self.settings.device == "auto" and there))

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
        found: Report | worker.Unusable = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return Stopped()
    except ray.exceptions.RayTaskError as error:
        return Failed(first_line(error.cause or error))
    except ray.exceptions.RayError as error:
        return Died(f"its worker was lost: {first_line(error)}")
    if isinstance(found, worker.Unusable):
        raise UserError(found.reason)
    return found
