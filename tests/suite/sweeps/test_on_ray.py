"""Sweeps on Ray as far as they need no Ray: options, addresses, machines, messages, and one line for what is wrong."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from suite.errors import UserError
from suite.sweeps.choice import Options, executor, written
from suite.sweeps.executor import Settings
from suite.sweeps.local import LocalExecutor
from suite.sweeps.on_ray import cluster, machines, worker
from suite.sweeps.on_ray.cluster import Cluster, check_address
from suite.sweeps.on_ray.desk import Desk
from suite.sweeps.on_ray.executor import RayExecutor
from tests.test_docs import ROOT

RACE = ("sweep", "--task", "sotu", "--mixer", "softmax")


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def with_ray(monkeypatch):
    monkeypatch.setattr(cluster, "require_ray", lambda: None)


def machine(cpus: float, gpus: float = 0.0) -> machines.Machine:
    return {"Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


def test_without_ray_one_line_names_what_to_install(suite, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = suite(*RACE, "--on", "ray")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "pip install 'mixer-suite[scale]'" in ended.err


def test_an_address_without_a_cluster_is_one_line_at_once(suite, with_ray, free_port):
    began = time.monotonic()
    ended = suite(*RACE, "--on", "ray", "--address", f"127.0.0.1:{free_port}", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert f"'127.0.0.1:{free_port}': no Ray cluster there" in ended.err.splitlines()[-1]
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("address", ["", "head", ":6379", "ray://head:10001", "head:0", "head:65536", "head:x"])
def test_an_address_of_another_form_is_refused_with_the_form(address):
    with pytest.raises(UserError, match="give HOST:PORT") as problem:
        check_address(address)
    assert len(str(problem.value)) < 200


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (Options(address="head:6379"), "add --on ray"),
        (Options(gpus=0.5), "add --on ray"),
        (Options("ray", device="cuda:1"), "Ray chooses the GPU"),
        (Options("ray", device="cpu", gpus=0.5), "leave one of the two out"),
        (Options("ray", device="cuda", gpus=0.0), "need a part of a GPU"),
    ],
)
def test_options_that_exclude_each_other_are_refused(with_ray, options, part):
    with pytest.raises(UserError, match=part):
        executor(options)


def test_a_run_declares_as_many_cpus_as_it_has_threads(with_ray):
    alone = executor(Options("ray", jobs=2, threads=3))
    assert isinstance(alone, RayExecutor)
    assert (alone.runs, alone.settings.threads) == (2, 3)
    joined = executor(Options("ray", address="head:6379"))
    assert isinstance(joined, RayExecutor)
    assert (joined.runs, joined.settings.threads) == (None, 1)
    assert alone._environment()["OMP_NUM_THREADS"] == "3"


def test_every_executor_receives_the_settings_of_all_runs(with_ray, monkeypatch):
    for on in ("local", "ray"):
        made = executor(Options(on, threads=2, workers=3, device="cuda", deterministic=True))
        assert isinstance(made, LocalExecutor | RayExecutor)
        assert made.settings == Settings(2, 3, "cuda", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert isinstance(made, RayExecutor)
    assert made._environment()["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_idle_threads_of_workers_wait_as_those_of_the_sweep(with_ray, monkeypatch):
    made = executor(Options("ray", address="head:6379"))
    assert isinstance(made, RayExecutor)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1234")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    environment = made._environment()
    assert environment["GOMP_SPINCOUNT"] == "1234"
    assert "OMP_WAIT_POLICY" not in environment


def test_workers_deliver_nothing_to_the_tracking_store_themselves(with_ray, monkeypatch, runs):
    made = executor(Options("ray"))
    assert isinstance(made, RayExecutor)
    for given, passed in (("later", "later"), ("off", "off"), (None, "later")):
        monkeypatch.delenv("SUITE_TRACKING", raising=False)
        if given:
            monkeypatch.setenv("SUITE_TRACKING", given)
        environment = made._environment()
        assert (environment["SUITE_TRACKING"], environment["SUITE_HOME"]) == (passed, str(runs))


def test_the_commands_of_a_plan_have_the_options_of_their_runs():
    given = Options(jobs=2, threads=4, workers=0, device="cuda", deterministic=True)
    words = ["--device", "cuda", "--jobs", "2", "--threads", "4", "--workers", "0", "--deterministic"]
    assert written(given) == words
    assert written(Options()) == []
    with pytest.raises(UserError, match="--plan"):
        written(Options("ray"))


@pytest.mark.parametrize(
    ("there", "cpus", "gpus", "runs"),
    [
        ([machine(8)], 1, 0.0, 8),
        ([machine(8), machine(3)], 2, 0.0, 5),
        ([machine(8)], 9, 0.0, 0),
        ([machine(8)], 1, 1.0, 0),
        ([machine(8, 2)], 1, 1.0, 2),
        ([machine(8, 2)], 1, 0.5, 4),
        ([machine(8, 2)], 1, 0.4, 4),
        ([machine(64, 2)], 1, 0.1, 20),
        ([machine(3, 4), machine(8)], 2, 0.25, 1),
    ],
)
def test_machines_hold_runs_as_their_cpus_and_whole_gpus_allow(there, cpus, gpus, runs):
    assert machines.runs_at_once(there, cpus, gpus) == runs


def test_a_machine_without_the_runs_folder_or_with_other_versions_is_named(tmp_path):
    mark, versions = tmp_path / "mark", worker.versions()
    missing = worker.obstacle(mark, versions)
    assert missing.startswith(socket.gethostname())
    assert str(tmp_path) in missing
    assert "SUITE_HOME" in missing
    mark.touch()
    assert worker.obstacle(mark, versions) == ""
    other = worker.obstacle(mark, versions | {"torch": "1.0"})
    assert other.startswith(socket.gethostname())
    assert "the sweep has 1.0" in other


def test_runs_learn_that_the_sweep_stops_when_they_report_a_step():
    desk, key = Desk(), (0, 1e-3, 0)
    assert not desk.write(key, 3, 6)
    assert not desk.write(key, 4, 6)
    assert desk.reached() == {key: (4, 6)}
    assert desk.reached() == {}
    desk.stop()
    assert desk.write(key, 5, 6)


def test_a_head_that_is_away_for_a_moment_is_no_loss_and_for_longer_is_one(monkeypatch, free_port):
    monkeypatch.setattr(cluster, "LOOK_S", 0.0)
    joined = Cluster("the Ray cluster", f"127.0.0.1:{free_port}")
    joined.check()
    with socket.create_server(("127.0.0.1", free_port)):
        joined.check()
    monkeypatch.setattr(cluster, "LOST_S", 0.0)
    with pytest.raises(UserError, match="the same command continues"):
        joined.check()


def test_an_own_cluster_is_lost_with_the_first_of_its_processes(monkeypatch):
    monkeypatch.setattr(cluster, "LOOK_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            own = Cluster("the Ray cluster", address, [psutil.Process(process.pid)])
            own.check()
            process.kill()
            process.wait()
            with pytest.raises(UserError, match="one of its processes has ended"):
                own.check()


def test_ray_is_imported_inside_functions_of_its_folder_alone():
    for path in (ROOT / "suite").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        everywhere = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not _of_ray(top), path
        assert not _of_ray(everywhere) or path.parent.name == "on_ray", path


def _of_ray(nodes: list[ast.Import | ast.ImportFrom]) -> bool:
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return any(name.split(".")[0] == "ray" for name in names)


def test_temporary_folders_are_short_enough_for_the_paths_of_sockets(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    made = cluster._short_folder()
    try:
        assert len(os.fsencode(made)) <= cluster.LONGEST_ROOT
        assert not list(Path(long).iterdir())
    finally:
        made.rmdir()
