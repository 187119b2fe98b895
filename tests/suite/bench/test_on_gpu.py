"""The comparisons for a GPU, run on the CPU as far as that shows something: they build, run and time; and the clock."""

from __future__ import annotations

import os

import pytest
import torch

from kernels.implementations import VARIABLE
from suite.bench import on_gpu, report, timing
from suite.bench.comparison import run_comparison
from suite.bench.timing import CPU
from suite.errors import UserError

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    "comparison", [*on_gpu.gpu_comparisons([32], CPU)], ids=lambda each: f"{each.name} {each.about}"
)
def test_every_comparison_runs_and_has_its_figures(comparison, monkeypatch):
    monkeypatch.setattr(on_gpu, "TOKENS", 64)
    outcome = run_comparison(comparison, rounds=2)
    assert not outcome.failed
    assert {figure["figure"] for figure in outcome.figures()} == {"price", "speed"}
    assert not outcome.undecided()


def test_the_pytorch_implementation_runs_without_triton_and_the_setting_is_restored(monkeypatch):
    seen = []
    monkeypatch.setenv(VARIABLE, "on")
    monkeypatch.setattr(on_gpu, "forward_backward", lambda *_: lambda: seen.append(os.environ.get(VARIABLE)))
    workloads = on_gpu._workloads(lambda x: x, torch.ones(1))
    workloads["ours"]()
    workloads["pytorch"]()
    assert seen == ["on", "off"]
    assert os.environ[VARIABLE] == "on"


def test_time_on_a_gpu_is_read_when_its_work_is_done(monkeypatch):
    order: list[str] = []
    monkeypatch.setattr("torch.cuda.synchronize", lambda: order.append("done"))
    monkeypatch.setattr(timing, "MIN_SAMPLE_S", 0.0)
    timing.interleaved({"a": lambda: order.append("work")}, rounds=2, device=CUDA)
    assert order[1:4] == ["done", "work", "done"]


@pytest.mark.parametrize("kind", ["mixers", "train", "decode"])
def test_other_kinds_run_on_a_cpu_only(kind):
    with pytest.raises(UserError, match="runs on a CPU only"):
        report.select(kind, [], [], CUDA)


def test_without_a_gpu_the_bench_reports_it_in_one_line(suite):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ended = suite("bench", "kernels", "--device", "cuda")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "device 'cuda' cannot be used" in ended.err
