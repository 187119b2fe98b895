"""The machines of a Ray cluster: how many runs they hold, and whether each of them can carry out one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.errors import UserError, first_line
from suite.sweeps.on_ray import worker

PROBE_S = 120.0  # a worker's first import of the suite, from storage that may be slow

Machine = dict[str, Any]


def alive() -> list[Machine]:
    """The cluster's machines, as Ray describes them."""
    import ray

    return [machine for machine in ray.nodes() if machine["Alive"]]


def have_gpus(machines: Sequence[Machine]) -> bool:
    """Whether any of them declares a GPU."""
    return any(_declared(machine, "GPU") for machine in machines)


def runs_at_once(machines: Sequence[Machine], cpus: int, gpus: float) -> int:
    """How many runs all machines hold at once.

    Args:
        machines: of the cluster.
        cpus: of each run.
        gpus: of each run, at most 1; a fraction is a part of one GPU.

    Returns:
        The number; 0 where no machine holds a single one.
    """
    total = 0
    for machine in machines:
        fits = int(_declared(machine, "CPU")) // cpus
        if gpus:
            fits = min(fits, int(_declared(machine, "GPU")) * int(1 / gpus + 1e-9))
        total += fits
    return total


def check(machines: Sequence[Machine], mark: Path, versions: dict[str, str]) -> None:
    """Starts a worker on every machine, which looks whether it could carry out runs.

    Args:
        machines: of the cluster.
        mark: a file in the runs folder that the sweep has written.
        versions: that all must have.

    Raises:
        UserError: the first machine that does not see the runs folder, has another version, or starts no worker.
    """
    import ray

    probe = ray.remote(num_cpus=0, max_retries=0)(worker.obstacle)
    tasks = {}
    for machine in machines:
        task = probe.options(scheduling_strategy=only_at(machine["NodeID"])).remote(mark, versions)
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
            raise UserError(
                f"{name}: its Ray workers do not start ({first_line(error)}); see Ray's logs there"
            ) from None


def only_at(node: str) -> Any:
    """Ray's strategy for a task that belongs on one machine.

    Args:
        node: its id.

    Returns:
        The strategy.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _declared(machine: Machine, what: str) -> float:
    return float(machine["Resources"].get(what, 0.0))
