"""`--deterministic`: equal bits in two processes, and planted operations that would prevent them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from suite.errors import UserError
from suite.records import record, runs_folder
from suite.records.schema import Record
from suite.training import checkpoint
from suite.training.deterministic import mode
from suite.training.run import resume, resume_newest, start
from tests.suite.sweeps.test_sweep import sweep
from tests.suite.tiny import RECALL, TASKS, tiny_arguments, tiny_config
from tests.suite.training.run_helpers import at_step

ROOT = Path(__file__).resolve().parents[3]
#: Everything that draws random numbers while training, and averaged weights.
RANDOM = ("dropout=0.2", "drop_path=0.3", "ema=0.9")

#: Mixers whose results differ from pass to pass: by an operation that PyTorch knows, by one that it can't know, and by
#: one in the gradient alone.
PLANTED = """
import os
import torch
from torch import Tensor
from backbones.mixers.deconstructed.variants import NoMixing

def noise() -> float:
    return int.from_bytes(os.urandom(2), "big") / 2**16

class Puts(NoMixing):
    def forward(self, x, context=None):
        return super().forward(x, context) + torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2)).sum()

class Noisy(NoMixing):
    def forward(self, x, context=None):
        return super().forward(x, context) * (1 + noise())

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * (1 + noise())

class NoisyGradient(NoMixing):
    def forward(self, x, context=None):
        return Backward.apply(super().forward(x, context))
"""


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """Neither tracking nor pictures: they take longer than these runs."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.execution.show_pictures", lambda *_: None)


@pytest.fixture
def planted(tmp_path) -> Path:
    path = tmp_path / "planted.py"
    path.write_text(PLANTED)
    return path


def in_a_process(runs: Path, hash_seed: int, *arguments: str) -> tuple[Record, dict[str, torch.Tensor]]:
    """The record of a run in a process of its own, and the weights and optimiser of its last step."""
    environment = {**os.environ, "SUITE_HOME": str(runs), "SUITE_TRACKING": "off", "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "suite", *arguments, "--deterministic", "--threads", "2", "--json"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = record.parse(done.stdout)
    state = torch.load(runs / made.id / checkpoint.NAME, weights_only=True)
    moments = {
        f"{index} {name}": value
        for index, moment in state["optimizer"]["state"].items()
        for name, value in moment.items()
    }
    return made, {**state["model"], **state["ema"], **moments}


@pytest.mark.slow
@pytest.mark.parametrize("task", [*TASKS, "mqar"])
def test_two_processes_give_the_same_bits(runs, task):
    arguments = tiny_arguments(task, "fem", *RANDOM, *(RECALL if task == "mqar" else ()))
    (one, weights), (two, others) = (in_a_process(runs / str(seed), seed, *arguments) for seed in (1, 2))
    assert one.deterministic is two.deterministic is True
    assert one.loss_trace == two.loss_trace
    assert record.same_figures(one, two)
    assert weights.keys() == others.keys()
    assert not [name for name, value in weights.items() if not torch.equal(value, others[name])]
    assert one.identity == two.identity


@pytest.mark.parametrize("task", TASKS)
def test_the_check_of_the_first_step_and_the_mode_change_no_loss_on_a_cpu(task):
    config = tiny_config(task, "softmax", *RANDOM)
    usual = start(config, data_dir=None, device="cpu").record
    with mode.using(True):
        made = start(config, data_dir=None, device="cpu").record
    assert (usual.deterministic, made.deterministic) == (False, True)
    assert made.loss_trace == usual.loss_trace
    assert (made.identity, made.group) == (usual.identity, usual.group)


@pytest.mark.parametrize(
    ("mixer", "words"),
    [
        ("Puts", "put_ has no deterministic algorithm on cpu"),
        ("Noisy", "planted.py:Noisy on fashion-mnist is not deterministic: the loss differs when step 1"),
        ("NoisyGradient", "is not deterministic: the gradient of "),
    ],
)
def test_a_planted_operation_ends_the_run_in_one_line(suite, runs, planted, mixer, words):
    ended = suite(*tiny_arguments("fashion-mnist", f"{planted}:{mixer}"), "--deterministic")
    assert (ended.code, ended.err.count("\n")) == (1, 1), ended.err
    assert words in ended.err
    assert "leave out --deterministic" in ended.err
    [path] = runs.glob("*/record.json")
    assert (record.read(path).status, record.read(path).loss_trace) == ("failed", [])
    assert suite(*tiny_arguments("fashion-mnist", f"{planted}:{mixer}")).code == 0


def test_a_mixer_that_draws_from_python_and_numpy_is_seeded(tmp_path):
    path = tmp_path / "draws.py"
    path.write_text(
        "import random\nimport numpy as np\nfrom backbones.mixers.deconstructed.variants import NoMixing\n"
        "class Draws(NoMixing):\n    def forward(self, x, context=None):\n"
        "        return super().forward(x, context) * (1 + random.random() + np.random.rand())\n"
    )
    config = tiny_config("fashion-mnist", f"{path}:Draws")
    with mode.using(True):
        one, two = (start(config, data_dir=None, device="cpu", again=True).record for _ in range(2))
    assert one.status == "finished", one.error
    assert one.loss_trace == two.loss_trace


def test_the_mode_ends_with_its_block_and_configures_cublas(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with mode.using(True):
        assert mode.active()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not mode.active()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with mode.using(False):
        assert not mode.active()


@pytest.mark.parametrize(("configured", "words"), [(":0:0", "needs :4096:8 or :16:8"), (None, "start it with CUBLAS")])
def test_cublas_that_has_begun_without_fixed_workspaces_is_refused(monkeypatch, configured, words):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if configured:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", configured)
    with pytest.raises(UserError, match=words), mode.using(True):
        pass
    assert not mode.active()


def stopped_run(monkeypatch, deterministic: bool) -> str:
    with monkeypatch.context() as patch, mode.using(deterministic):
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return start(tiny_config("fashion-mnist"), data_dir=None, device="cpu").record.id


def test_a_resumed_run_continues_in_the_mode_that_it_began_in(monkeypatch):
    outcome = resume(stopped_run(monkeypatch, True), data_dir=None, device="cpu")
    assert (outcome.record.deterministic, outcome.record.resumed_at) == (True, [3])
    assert not mode.active()


def test_a_run_that_began_without_the_mode_is_not_resumed_with_it(monkeypatch, suite):
    name = stopped_run(monkeypatch, False)
    ended = suite("run", "--resume", name, "--deterministic")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"run {name} began without --deterministic" in ended.err


@pytest.mark.parametrize("began", [True, False])
def test_resuming_by_config_takes_runs_of_the_same_mode_alone(monkeypatch, runs, began):
    name = stopped_run(monkeypatch, began)
    with mode.using(True):
        made = resume_newest(tiny_config("fashion-mnist"), data_dir=None, device="cpu").record
    assert made.deterministic is True
    assert (made.id == name) is began


def test_a_run_that_ended_without_the_mode_does_not_replace_one_with_it():
    config = tiny_config("fashion-mnist")
    usual = start(config, data_dir=None, device="cpu").record
    with mode.using(True):
        made = resume_newest(config, data_dir=None, device="cpu").record
        again = resume_newest(config, data_dir=None, device="cpu").record
    assert made.id != usual.id
    assert again.id == made.id


def test_the_folder_of_a_run_keeps_the_mode_only_where_it_is_on(runs):
    folder = runs_folder.new_run(tiny_config("fashion-mnist"), None)
    assert "deterministic" not in runs_folder.read_run(folder)
    assert not runs_folder.began_deterministic(folder)
    assert runs_folder.began_deterministic(runs_folder.new_run(tiny_config("sotu"), None, deterministic=True))


@pytest.mark.slow
def test_a_sweep_passes_the_mode_to_its_runs_and_adopts_no_others(runs):
    for options in ((), ("--deterministic",)):
        process = sweep(runs, "--json", *options)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert json.loads(out)["races"][0]["chosen"] is not None
    made = [record.read(path) for path in runs.glob("*/record.json")]
    assert len(made) == len({(each.identity, each.deterministic) for each in made})
    by_mode = [
        {each.identity: each.loss_trace for each in made if each.deterministic is kind} for kind in (False, True)
    ]
    assert len(by_mode[0]) >= 4  # two rates, two seeds
    assert by_mode[0] == by_mode[1]


def test_the_plan_of_a_sweep_keeps_the_mode(suite, tmp_path):
    plan = tmp_path / "plan.txt"
    ended = suite("sweep", "--task", "sotu", "--mixer", "softmax", "--deterministic", "--plan", str(plan))
    assert ended.code == 0, ended.err
    assert all(line.endswith(" --deterministic") for line in plan.read_text().splitlines())


def test_layers_that_choose_kernels_by_timing_are_refused(suite, monkeypatch):
    monkeypatch.setattr("backbones.mixers.fla.mixer.version", lambda name: "0.6.0")
    monkeypatch.setattr("suite.models.mixer_candidate.MixerCandidate.obstacle", lambda self, device: "")
    ended = suite("run", "--task", "sotu", "--mixer", "fla/gla", "--device", "cpu", "--deterministic")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "'fla/gla' is not deterministic" in ended.err
