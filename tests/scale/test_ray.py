"""Sweeps on Ray: the same records as local ones, whatever dies; nothing is left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from suite.records import runs_folder
from suite.records.schema import Record
from tests.suite.tiny import tiny_sets
from tests.test_docs import ROOT

pytestmark = pytest.mark.scale

MIXERS = ("softmax", "no-mixing", "linear")
LONG = ("steps=600", "evals=60")  # seconds of training, with a checkpoint at each validation
#: What depends on the machine's load, the time and how often a run was stopped.
OWN = {"id", "created", "hash", "timing", "peak_memory_bytes", "resumed_at"}


def command(
    *more: str, mixers: tuple[str, ...] = MIXERS, seeds: str = "0-1", sets: tuple[str, ...] = LONG
) -> list[str]:
    words = ["sweep", "--task", "sotu", "--seeds", seeds, "--json", "--device", "cpu"]
    words += [word for mixer in mixers for word in ("--mixer", mixer)]
    words += [word for value in (*tiny_sets("sotu"), *sets, "lr=1e-3") for word in ("--set", value)]
    return [sys.executable, "-m", "suite", *words, *more]


def started(runs: Path, words: list[str], **variables: str) -> subprocess.Popen[str]:
    """A sweep in a process group of its own, as a terminal starts it, with a temporary folder of its own."""
    folder = runs.parent / "tmp"
    folder.mkdir(exist_ok=True)
    own = {"SUITE_HOME": str(runs), "SUITE_TRACKING": "off", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, **own, **variables}
    return subprocess.Popen(words, env=environment, text=True, cwd=runs.parent, start_new_session=True, **pipes)


def done(runs: Path, words: list[str], **variables: str) -> dict[str, Any]:
    """The JSON document of a sweep that ends with exit code 0."""
    process = started(runs, words, **variables)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    assert found["errors"] == []
    return found


def wait_until(true: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := true()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def ended(runs: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in runs.glob("*/record.json")}


def in_the_middle(runs: Path) -> list[Path]:
    """Folders of runs that have a checkpoint and no record."""
    folders = [path.parent for path in runs.glob("*/*.pt*")] + [path.parent.parent for path in runs.glob("*/*/*.pt*")]
    return [folder for folder in folders if not (folder / "record.json").exists()]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Ray's workers that carry out a run now, as their titles say."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            found += [child] if child.cmdline()[:1] == ["ray::run"] else []
        except psutil.NoSuchProcess:
            continue
    return found


def records(runs: Path) -> dict[tuple[str, int], Record]:
    """The records by mixer and seed, each there once; no run has left a folder without one."""
    folders = sorted(path.parent for path in runs.glob("*/config.json"))
    made = [runs_folder.ended(folder) for folder in folders]
    found = {(each.mixer, each.seed): each for each in made if each is not None}
    assert len(found) == len(folders), [folder.name for folder in folders]
    return found


def same(one: dict[tuple[str, int], Record], two: dict[tuple[str, int], Record]) -> bool:
    """Whether records are equal in everything but what depends on time and load."""
    assert one.keys() == two.keys()
    return all(one[key].model_dump(exclude=OWN) == two[key].model_dump(exclude=OWN) for key in one)


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict[tuple[str, int], Record]:
    """The records of the sweep on this machine."""
    runs = tmp_path_factory.mktemp("local") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        done(runs, command("--on", "local", "--jobs", "2", "--threads", "1"))
        patch.setenv("SUITE_HOME", str(runs))
        return records(runs)


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "runs"
    monkeypatch.setenv("SUITE_HOME", str(folder))
    return folder


def test_a_killed_worker_costs_no_run_and_records_equal_those_of_a_local_sweep(runs, local):
    process = started(runs, command("--on", "ray", "--jobs", "2", "--threads", "1"))
    wait_until(lambda: len(ended(runs)) >= 2 and in_the_middle(runs), process)
    before = ended(runs)
    killed = wait_until(lambda: workers(process), process)[0]
    killed.send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["errors"] == []
    assert {path: ended(runs)[path] for path in before} == before
    made = records(runs)
    assert len(made) == 6
    assert sum(bool(each.resumed_at) for each in made.values()) == 1, "the killed worker was not in a run's middle"
    assert same(made, local)


def test_a_stopped_sweep_leaves_no_process_and_resumes_without_repeating_a_run(runs, local):
    process = started(runs, command("--on", "ray", "--jobs", "2", "--threads", "1"))
    wait_until(lambda: ended(runs) and len(workers(process)) == 2 and in_the_middle(runs), process)
    children = psutil.Process(process.pid).children(recursive=True)
    folders = {Path(word.split("=")[1]).parent for each in children for word in each.cmdline() if "--log_dir=" in word}
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command continues" in err
    assert_all_end(children)
    assert folders
    assert not any(folder.exists() for folder in folders)
    before = ended(runs)
    assert 0 < len(before) < 6
    done(runs, command("--on", "ray", "--jobs", "2", "--threads", "1"))
    made = records(runs)
    assert {path: ended(runs)[path] for path in before} == before
    assert any(each.resumed_at for each in made.values())
    assert same(made, local)


@pytest.mark.parametrize("kill", ["SIGKILL", "two SIGINT"])
def test_a_sweep_that_is_ended_at_once_leaves_no_process(runs, kill):
    process = started(runs, command("--on", "ray", "--threads", "1", sets=("steps=20000", "evals=1")))
    wait_until(lambda: workers(process) and list(runs.glob("*/running.lock")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    if kill == "SIGKILL":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert_all_end(children)


def test_a_run_has_as_many_threads_as_cpus_are_declared(runs):
    words = command("--on", "ray", "--threads", "2", mixers=("softmax",), seeds="0")
    process = started(runs, words, OMP_NUM_THREADS="1")
    (worker,) = wait_until(lambda: workers(process), process)
    assert worker.environ()["OMP_NUM_THREADS"] == "2"
    _, err = process.communicate(timeout=120)
    (made,) = records(runs).values()
    assert made.hardware.threads == 2, err


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, psutil.Process]]:
    """The address of a running cluster of two CPUs, and its process."""
    folder = tempfile.mkdtemp(prefix="ray-")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray = Path(sys.executable).with_name("ray")
    words = [str(ray), "start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--block"]
    words += [f"--temp-dir={folder}", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout
    while "Ray runtime started" not in (line := process.stdout.readline()):
        assert line, "the cluster did not start"
    of_cluster = psutil.Process(process.pid)
    children = of_cluster.children(recursive=True)
    yield f"127.0.0.1:{port}", of_cluster
    process.terminate()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=30)
    for each in alive:
        each.kill()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_running_cluster_is_used_as_far_as_it_reaches_and_stays(runs, local, cluster):
    address, process = cluster
    found = done(runs, command("--on", "ray", "--address", address))
    assert [race["chosen"] for race in found["races"]] == [1e-3] * 3
    assert same(records(runs), local)
    assert process.is_running()


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--threads", "64"], "no machine of the Ray cluster has the 64 CPUs of a run; lower --threads"),
        (["--gpus-per-run", "0.5", "--device", "auto"], "1 CPU and 0.5 GPU"),
    ],
)
def test_a_run_that_no_machine_can_hold_is_refused_in_one_line(runs, cluster, more, part):
    process = started(runs, command("--on", "ray", "--address", cluster[0], *more))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, ""), err
    assert part in err.splitlines()[-1]


def test_a_runs_folder_that_workers_do_not_see_is_refused_in_one_line(runs, cluster):
    hide = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*hide, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a machine whose disk others do not see needs mount namespaces")
    runs.mkdir()
    words = command("--on", "ray", "--address", cluster[0])
    process = started(runs, [*hide, 'mount -t tmpfs none "$SUITE_HOME" && exec "$0" "$@"', *words])
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, ""), err
    assert f"does not see the sweep's runs folder {runs}" in err.splitlines()[-1]
    assert "SUITE_HOME" in err.splitlines()[-1]
