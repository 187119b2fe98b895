"""Threads and loader processes: how many, whose, and what the record says of them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kernels.cpu import library
from kernels.cpu.process import waiting
from kernels.rows import swiglu
from suite.training import processors
from suite.training.run import start
from tasks.storage import cores
from tests.suite.tiny import tiny_config

ROOT = Path(__file__).resolve().parents[3]
FILES: Any = SimpleNamespace(needs_data_dir=True)
EMBEDDED: Any = SimpleNamespace(needs_data_dir=False)


@pytest.mark.parametrize(
    ("written", "limit"),
    [("max 100000", math.inf), ("150000 100000", 1.5), ("50000 100000", 0.5), ("", math.inf), ("-1 100000", math.inf)],
)
def test_a_containers_limit_is_read(tmp_path, monkeypatch, written, limit):
    (tmp_path / "cpu.max").write_text(written)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    assert cores._limit() == limit
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert cores.cores() == {math.inf: 4, 1.5: 1, 0.5: 1}[limit]


def test_the_limit_of_older_control_groups_is_read(tmp_path, monkeypatch):
    for name, value in (("quota", "300000"), ("period", "100000")):
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "missing")
    monkeypatch.setattr(cores, "_QUOTA_V1", (tmp_path / "quota", tmp_path / "period"))
    assert cores._limit() == 3


@pytest.mark.slow
def test_a_process_on_one_processor_starts_one_loader_and_one_thread():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from types import SimpleNamespace\nimport torch\nfrom suite.training import processors\n"
        "with processors.using():\n"
        "    print(processors.loader_workers(SimpleNamespace(needs_data_dir=True)), torch.get_num_threads())"
    )
    variables = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_the_given_numbers_hold_within_the_block_only(monkeypatch):
    monkeypatch.setattr(processors, "cores", lambda: 5)
    before = torch.get_num_threads()
    with processors.using(3, 7):
        assert torch.get_num_threads() == 3
        assert processors.loader_workers(FILES) == processors.loader_workers(EMBEDDED) == 7
    assert torch.get_num_threads() == before
    assert (processors.loader_workers(FILES), processors.loader_workers(EMBEDDED)) == (5, 0)


def test_the_record_says_how_many_threads_computed_and_how_they_wait(runs, monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with processors.using(2):
        made = start(tiny_config("sotu", "softmax"), data_dir=None, device="cpu").record
    assert made.threads is not None
    assert (made.threads.count, made.threads.wait_policy, made.hardware.threads) == (2, "passive", 2)


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, "active"),
        ({"OMP_WAIT_POLICY": "passive"}, "passive"),
        ({"OMP_WAIT_POLICY": "active"}, "active"),
        ({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}, "brief"),
        ({"GOMP_SPINCOUNT": "0"}, "passive"),
        ({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "INFINITY"}, "active"),
        ({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "4000"}, "active"),
        ({"GOMP_SPINCOUNT": "30000000"}, "active"),
    ],
)
def test_the_wait_policy_is_what_the_runtime_does(given, policy, monkeypatch, tmp_path):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert processors.wait_policy() == policy


@pytest.mark.parametrize(
    ("given", "pause", "policy"),
    [
        ({}, None, "passive 2000"),
        ({}, "10.0", "passive 6400"),
        ({}, "45.1", "passive 1419"),
        ({}, "0.2", "passive 20000"),
        ({}, "500", "passive 500"),
        ({}, "soon", "passive 2000"),
        ({}, "-3", "passive 2000"),
        ({"OMP_WAIT_POLICY": "active"}, "10.0", "active None"),
        ({"OMP_WAIT_POLICY": "passive"}, "10.0", "passive None"),
        ({"GOMP_SPINCOUNT": "7"}, "10.0", "passive 7"),
    ],
)
def test_commands_let_idle_threads_sleep_unless_the_user_wants_otherwise(given, pause, policy, tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    if pause:
        waiting._file().write_text(pause)
    code = "import sys, os\nfrom suite.cli import app\nsys.argv = ['suite', '--help']\ntry:\n    app.main()\n"
    code += "except SystemExit:\n    print(*map(os.environ.get, names))"
    code = "names = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')\n" + code
    variables = (
        {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        | {"PYTHONPATH": str(ROOT)}
        | given
    )
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert " ".join(done.stdout.split()[-2:]) == policy


def test_what_is_brief_follows_from_the_measured_pause(monkeypatch, tmp_path):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    waiting._file().write_text("10")
    assert waiting.is_brief(10_000)
    assert not waiting.is_brief(10_001)
    waiting._file().unlink()
    assert waiting.is_brief(3000)
    assert not waiting.is_brief(3001)


def test_the_pause_is_measured_once_when_the_kernels_are_loaded(monkeypatch, tmp_path):
    if (found := library.library()) is None:
        pytest.skip("no compiled library")
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    assert waiting.pause_ns() is None
    waiting.measure(found)
    measured = waiting.pause_ns()
    assert measured is not None
    assert 1 <= measured <= 200
    assert 0.5 * waiting.WAIT_NS <= waiting.rounds() * measured <= 2 * waiting.WAIT_NS
    waiting._file().write_text("33")
    waiting.measure(found)
    assert waiting.pause_ns() == 33


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_compiled_kernels_run_on_pytorchs_own_threads():
    if library.library() is None or library.pool() is None:
        pytest.skip("no compiled library, or PyTorch has another runtime than GNU's")
    x_ND, up_2FD, down_DF = torch.randn(4096, 32), torch.randn(128, 32), torch.randn(32, 64)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(1 << 20).exp()  # starts PyTorch's threads
        threads = set(os.listdir("/proc/self/task"))
        for _ in range(50):
            swiglu(x_ND, up_2FD, down_DF)
        assert set(os.listdir("/proc/self/task")) == threads
    finally:
        torch.set_num_threads(before)
    runtimes = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
    assert len([path for path in runtimes if Path(path).name.startswith(("libgomp", "libomp", "libiomp"))]) == 1
