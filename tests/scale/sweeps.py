"""Sweeps of small runs in processes of their own, the records they make, and a Ray cluster that they can join."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from suite.records import runs_folder
from suite.records.schema import Record
from tests.suite.tiny import tiny_sets
from tests.test_docs import ROOT

MIXERS = ("softmax", "no-mixing", "linear")
STEPS = ("steps=240", "evals=24")  # with a checkpoint at each validation
#: What depends on the machine's load, the time and how often a run was stopped.
OWN = {"id", "created", "hash", "timing", "peak_memory_bytes", "resumed_at"}

Records = dict[tuple[str, int], Record]


def command(
    *more: str, mixers: tuple[str, ...] = MIXERS, seeds: str = "0-1", sets: tuple[str, ...] = STEPS
) -> list[str]:
    words = ["sweep", "--task", "sotu", "--seeds", seeds, "--json", "--device", "cpu"]
    words += [word for mixer in mixers for word in ("--mixer", mixer)]
    words += [word for value in (*tiny_sets("sotu"), *sets, "lr=1e-3") for word in ("--set", value)]
    return [sys.executable, "-m", "suite", *words, *more]


@contextmanager
def started(runs: Path, words: list[str], **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep in a process group of its own, as a shell starts it. It has ended afterwards."""
    runs.parent.mkdir(exist_ok=True)
    own = {"SUITE_HOME": str(runs), "SUITE_TRACKING": "off", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words,
        env={**os.environ, **own, **variables},
        text=True,
        cwd=runs.parent,
        process_group=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def carried_out(runs: Path, words: list[str], **variables: str) -> dict[str, Any]:
    """The JSON document of a sweep that ends with exit code 0."""
    with started(runs, words, **variables) as process:
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    assert found["errors"] == []
    return found


def refusal(runs: Path, words: list[str]) -> str:
    """The line of a sweep that ends with exit code 2 before any run."""
    with started(runs, words) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, ""), err
    assert not list(runs.glob("*/config.json"))
    return err.strip().splitlines()[-1]


def wait_until(true: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 240
    while not (found := true()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def ended(runs: Path) -> dict[Path, bytes]:
    """The records of runs that have finished."""
    found = {path: path.read_bytes() for path in runs.glob("*/record.json")}
    return {path: content for path, content in found.items() if json.loads(content)["status"] == "finished"}


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def commands(processes: list[psutil.Process]) -> dict[psutil.Process, list[str]]:
    """The command lines of those processes that have not ended yet."""
    found = {}
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            found[each] = each.cmdline()
    return found


def head_of(processes: list[psutil.Process]) -> psutil.Process:
    """The process of a cluster that all others depend on."""
    (head,) = [each for each, words in commands(processes).items() if words and words[0].endswith("/gcs_server")]
    return head


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Ray's workers that carry out a run now, as their titles say."""
    return [each for each, words in commands(descendants(process)).items() if words[:1] == ["ray::run"]]


def in_the_middle(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Ray's workers whose run, whose lock they hold, has its first checkpoint and no other."""
    found = []
    for worker in workers(process):
        with suppress(psutil.NoSuchProcess):
            folders = [Path(each.path).parent for each in worker.open_files() if each.path.endswith("/running.lock")]
            begun = [(each / "checkpoint.pt").exists() and not (each / "checkpoint.1.pt").exists() for each in folders]
            found += [worker] if any(begun) else []
    return found


def records(runs: Path) -> Records:
    """The records by mixer and seed, each there once; no run has left a folder without one."""
    folders = sorted(path.parent for path in runs.glob("*/config.json"))
    made = [runs_folder.ended(folder) for folder in folders]
    found = {(each.mixer, each.seed): each for each in made if each is not None}
    assert len(found) == len(folders), [folder.name for folder in folders]
    return found


def assert_equal(one: Records, two: Records) -> None:
    """Records are equal, with every loss, in everything but what depends on time and load."""
    assert one.keys() <= two.keys()
    for key, record in one.items():
        assert record.loss_trace
        mine, other = (each.model_dump(exclude=OWN) for each in (record, two[key]))
        assert [name for name in mine if mine[name] != other[name]] == [], key


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=90)
    left = []
    for each in alive:
        with suppress(psutil.NoSuchProcess):  # it ends just now
            left += [each] if each.status() != psutil.STATUS_ZOMBIE else []
    assert left == []


def interrupt(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C in a terminal, which reaches all processes of the group."""
    os.killpg(process.pid, signal.SIGINT)


@contextmanager
def ray_cluster(cpus: int) -> Iterator[str]:
    """The address of a running cluster, which has ended afterwards."""
    folder = tempfile.mkdtemp(prefix="ray-")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray = Path(sys.executable).with_name("ray")
    words = [str(ray), "start", "--head", f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false"]
    words += [f"--temp-dir={folder}", "--disable-usage-stats", "--node-ip-address=127.0.0.1", "--block"]
    variables = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **variables}
        ) as process,
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        assert process.stdout
        while "Ray runtime started" not in (line := process.stdout.readline()):
            assert line, "the cluster did not start"
        children = descendants(process)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=60)
            _, alive = psutil.wait_procs(children, timeout=30)
            for each in alive:
                each.kill()
            shutil.rmtree(folder, ignore_errors=True)
