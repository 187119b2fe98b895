"""The Ray cluster of a sweep: one of its own on this machine, which it ends, or one that it joins."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from suite.errors import UserError, first_line, reason

#: Bytes of the longest path of a folder below which Ray's sockets fit: `/session_DATE_TIME_MICROSECONDS_PID/sockets/
#: plasma_store` has 66 with a process id of 7 digits, and the system allows 107.
LONGEST_ROOT = 40
OBJECT_STORE_BYTES = 80 * 2**20  # messages are small; Ray's minimum is 75 MB
CONNECT_S = 5.0
END_S = 5.0


def require_ray() -> None:
    """Raises UserError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
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
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--address {address[:80]!r}: no Ray cluster there ({reason(error)}); start one (ray start --head), or "
            "leave --address out"
        ) from None


@contextmanager
def started(cpus: int, environment: Mapping[str, str]) -> Iterator[None]:
    """A cluster of this machine alone, for this process alone. All of its processes have ended afterwards, and it
    sends no usage statistics.

    Args:
        cpus: that it declares.
        environment: variables of its workers.

    Yields:
        Nothing.

    Raises:
        UserError: Ray does not start.
    """
    root, before = _short_folder(), _children()
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # its ports are open to others
    options = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(root),
        "_node_ip_address": "127.0.0.1",
    }
    try:
        with _variables(secret), _connected("local", environment, options):
            yield
    finally:
        _end(_children() - before)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def joined(address: str, environment: Mapping[str, str]) -> Iterator[None]:
    """A cluster that is running already; afterwards it runs as before, without tasks of this process.

    Args:
        address: `auto` or `HOST:PORT`.
        environment: variables of the workers that carry out this process's tasks.

    Yields:
        Nothing.

    Raises:
        UserError: it cannot be joined.
    """
    check_address(address)
    with _connected(address, environment, {}):
        yield


@contextmanager
def _connected(address: str, environment: Mapping[str, str], options: Mapping[str, object]) -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"env_vars": dict(environment)},
                **options,
            )
        except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            what = "Ray does not start here" if address == "local" else f"--address {address[:80]!r} cannot be joined"
            raise UserError(f"{what}: {first_line(error)}") from None
        finally:
            for number, handler in handlers.items():  # Ray sets its own, and a sweep stops in its own way
                signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


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
    return set(psutil.Process().children(recursive=True))


def _end(processes: set[psutil.Process]) -> None:
    """Ends what is left of a cluster's processes; workers end by themselves when theirs has."""
    _, alive = psutil.wait_procs(list(processes), timeout=END_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=END_S)
