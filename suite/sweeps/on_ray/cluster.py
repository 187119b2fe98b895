"""The Ray cluster of a sweep: one of its own on this machine, which it ends, or one that it joins."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from suite.errors import UserError, first_line, reason
from suite.sweeps.stopping import SIGNALS

#: Bytes of the longest path of a folder below which Ray's sockets fit: `/session_DATE_TIME_MICROSECONDS_PID/sockets/
#: plasma_store` has 66 with a process id of 7 digits, and the system allows 107.
LONGEST_ROOT = 40
OBJECT_STORE_BYTES = 80 * 2**20  # messages are small; Ray's minimum is 75 MB
#: Ray then takes 127.0.0.1 for this machine's address, and its servers listen there alone, as on other systems.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
NO_STATISTICS = {"RAY_USAGE_STATS_ENABLED": "0"}
NEEDED = ("gcs_server", "raylet")  # no run survives the end of one of them
CONNECT_S = 5.0
END_S = 5.0
LOOK_S = 2.0
LOST_S = 20.0  # a head that is restarted with its state is back by then


def require_ray() -> None:
    """Raises UserError where Ray is not installed."""
    found = importlib.util.find_spec("ray")
    if found is None or found.origin is None:  # a folder of that name is not Ray
        raise UserError(
            "--on ray needs Ray, which is not installed: pip install 'mixer-suite[scale]', or use --on local"
        )


def check_address(address: str) -> None:
    """Finds out early whether there is anything at an address, because Ray itself waits for a minute.

    Args:
        address: `auto`, or `HOST:PORT` of a cluster.

    Raises:
        UserError: it is no address of a cluster.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--address {address[:80]!r}: give HOST:PORT of the cluster's head (6379 by default) or auto")
    if problem := _problem_at(address):
        raise UserError(
            f"--address {address[:80]!r}: no Ray cluster there ({problem}); start one (ray start --head), or leave "
            "--address out"
        )


def _problem_at(address: str) -> str:
    """Why nothing answers at HOST:PORT; empty where something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        return reason(error)
    return ""


class Cluster:
    """A cluster that this process is connected to."""

    def __init__(self, name: str, head: str, processes: Collection[psutil.Process] = ()) -> None:
        """Takes what there is to look at.

        Args:
            name: how messages name it.
            head: HOST:PORT of its head.
            processes: of it, where it is this process's own.
        """
        self.name, self.head, self.processes = name, head, processes
        self._looked = self._seen = time.monotonic()

    def check(self) -> None:
        """Looks now and then whether the cluster is there: without its head Ray waits, then ends this process.

        Raises:
            UserError: the head is gone for a while, or a process of the own cluster has ended.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        problem = _problem_at(self.head)
        ended = [each.pid for each in self.processes if not _is_alive(each)]
        if not problem and not ended:
            self._seen = now
        elif ended or now - self._seen > LOST_S:
            raise UserError(
                f"{self.name} is lost ({problem or 'one of its processes has ended'}); the same command continues: "
                "runs that were in progress start at their last checkpoints"
            )


@contextmanager
def started(cpus: int, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster of this machine alone, for this process alone. All of its processes have ended afterwards. It listens
    on the loopback interface, refuses whoever lacks its token, has no dashboard, and sends no usage statistics.

    Args:
        cpus: that it declares.
        environment: variables of its workers.

    Yields:
        The cluster.

    Raises:
        UserError: Ray does not start.
    """
    root, before, ours = _short_folder(), _children(), set[psutil.Process]()
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), **LOOPBACK_ONLY}
    options = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(root),
    }
    try:
        with _variables(variables), _connected("local", environment, options) as head:
            ours = _children() - before
            try:
                yield Cluster("the Ray cluster of this sweep", head, [p for p in ours if p.name() in NEEDED])
            finally:
                ours |= _below(ours)  # those that outlive a killed parent are not found afterwards
    finally:
        _end(ours or _children() - before)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def joined(address: str, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster that is running already; afterwards it runs as before, without tasks of this process.

    Args:
        address: `auto` or `HOST:PORT`.
        environment: variables of the workers that carry out this process's tasks.

    Yields:
        The cluster.

    Raises:
        UserError: it cannot be joined.
    """
    check_address(address)
    with _connected(address, environment, {}) as head:
        yield Cluster(f"the Ray cluster at {head}", head)


@contextmanager
def _connected(address: str, environment: Mapping[str, str], options: Mapping[str, object]) -> Iterator[str]:
    os.environ.update(NO_STATISTICS)
    import ray

    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"env_vars": dict(environment)},
                **options,
            )
        except Exception as error:  # a start that takes too long, for one, is an Exception
            raise UserError(f"{_failed(address)}: {first_line(error)}") from None
        finally:
            for number, handler in handlers.items():  # Ray sets its own, and a sweep stops in its own way
                signal.signal(number, handler)
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def _failed(address: str) -> str:
    if address == "local":
        return "Ray does not start here"
    token = (
        "" if "RAY_AUTH_MODE" in os.environ else " (if it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)"
    )
    return f"--address {address[:80]!r} cannot be joined{token}"


def _short_folder() -> Path:
    """A new folder in which the paths of Ray's sockets are not too long for the system."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        with suppress(OSError):
            root = Path(tempfile.mkdtemp(prefix="ray-", dir=parent))
            if len(os.fsencode(root)) <= LONGEST_ROOT:
                return root
            root.rmdir()
    raise UserError("Ray needs a temporary folder with a short path, and /tmp cannot be written to; set TMPDIR to one")


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables; those that the user has set stay."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _children() -> set[psutil.Process]:
    return _below([psutil.Process()])


def _below(processes: Collection[psutil.Process]) -> set[psutil.Process]:
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.update(process.children(recursive=True))
    return found


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _end(processes: set[psutil.Process]) -> None:
    """Ends what is left of a cluster's processes; workers end by themselves when theirs has."""
    _, alive = psutil.wait_procs(list(processes), timeout=END_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=END_S)
