"""Preempted, killed and requeued jobs: the example batch script under a stand-in for Slurm."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import torch
import typer

from suite.cli import app
from suite.records import record
from suite.records.schema import Record
from suite.training import checkpoint, signals
from suite.training.run import start
from tests.faults import slurm
from tests.faults.slurm import BOTH, CANCELLED, NODE_LOST, PREEMPTED, ROOT, TIME_LIMIT, Event, Job
from tests.suite.cli.test_interface import commands_below
from tests.suite.tiny import tiny_arguments, tiny_config
from tests.suite.training.test_image_runs import TINY
from tests.tasks.images.image_files import write_folder

SCRIPT = ROOT / "examples" / "slurm" / "run.sbatch"
#: A checkpoint every few steps, everything that draws random numbers, and averaged weights.
SETS = ("steps=160", "evals=40", "dropout=0.2", "drop_path=0.3", "ema=0.9")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Record, dict[str, torch.Tensor]]:
    """The uninterrupted run: its record, and the weights of its last step."""
    runs = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUITE_HOME", str(runs))
        patch.setenv("SUITE_TRACKING", "off")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        made = start(tiny_config("sotu", "fem", *SETS), data_dir=None, device="cpu").record
        torch.set_num_threads(threads)
    assert made.status == "finished"
    return made, weights(runs / made.id)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / checkpoint.NAME, weights_only=True)
    return {**state["model"], **{f"ema {name}": value for name, value in state["ema"].items()}}


def submitted(tmp_path: Path, monkeypatch, script: Path = SCRIPT) -> Job:
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, *arguments = tiny_arguments("sotu", "fem", *SETS)  # without `run`, which the script has
    return Job(script, arguments, tmp_path / "runs", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "codes"),
    [
        ((PREEMPTED, TIME_LIMIT, BOTH), (143, 138)),
        ((NODE_LOST,), (-9,)),
        ((PREEMPTED, NODE_LOST, Event((signal.SIGTERM,), 0, requeued=True)), (143, -9, -9)),
    ],
    ids=["three times with a grace period", "killed without one", "three times, with less and less grace"],
)
def test_a_requeued_job_ends_with_the_losses_of_an_uninterrupted_run(tmp_path, monkeypatch, whole, events, codes):
    job = submitted(tmp_path, monkeypatch)
    attempts = job.run(events)
    log = (tmp_path / "job.log").read_text()
    assert attempts[-1].code == 0, log
    assert tuple(attempt.code for attempt in attempts)[: len(codes)] == codes, log
    assert len(attempts) == len(events) + 1
    [folder] = [path.parent for path in job.runs.glob("*/config.json")]  # one run, resumed each time
    made = record.read(folder / record.NAME)
    assert len(made.resumed_at) == len(events)
    assert 0 < made.resumed_at[0] <= made.resumed_at[-1] < 160
    expected, last = whole
    assert made.loss_trace == expected.loss_trace
    assert record.same_figures(made, expected)
    assert made.selection == expected.selection
    assert not [name for name, value in weights(folder).items() if not torch.equal(value, last[name])]


@pytest.mark.slow
def test_signals_reach_the_processes_that_load_data_and_cost_no_step(tmp_path, monkeypatch):
    """Slurm signals every process of a step. One that loads data and died of it would end the run as a failure."""
    data = write_folder(tmp_path / "data", ("boots", "coats", "shirts"), all=20)
    sets = ("patch=16", "image_size=32", *TINY, "steps=400", "evals=100")
    arguments = ["--task", "folder", "--mixer", "softmax", "--scale", "board", "--device", "cpu", "--workers", "2"]
    arguments += ["--data-dir", str(data), *(word for value in sets for word in ("--set", value))]
    monkeypatch.setenv("SUITE_TRACKING", "off")
    job = Job(SCRIPT, arguments, tmp_path / "runs", tmp_path)
    codes = [attempt.code for attempt in job.run([TIME_LIMIT, PREEMPTED])]
    assert codes == [138, 143, 0], (tmp_path / "job.log").read_text()[-2000:]
    [path] = job.runs.glob("*/record.json")
    assert len(record.read(path).resumed_at) == 2


@pytest.mark.slow
def test_a_stopped_step_ends_well_within_the_grace_period(tmp_path, monkeypatch):
    first, _ = submitted(tmp_path, monkeypatch).run([PREEMPTED])
    assert first.code == 143
    assert first.ended_after_s < PREEMPTED.grace_s / 2


@pytest.mark.slow
def test_a_cancelled_job_does_not_requeue_itself(tmp_path, monkeypatch):
    [only] = submitted(tmp_path, monkeypatch).run([CANCELLED])
    assert only.code == 143


@pytest.mark.slow
def test_a_script_without_resume_auto_starts_from_scratch(tmp_path, monkeypatch):
    """The stand-in would show a script that does not continue."""
    script = tmp_path / "wrong.sbatch"
    script.write_text(SCRIPT.read_text("utf-8").replace("--resume auto", ""))
    job = submitted(tmp_path, monkeypatch, script)
    job.run([PREEMPTED])
    assert len(list(job.runs.glob("*/config.json"))) == 2


def test_the_example_warns_the_step_in_time_with_a_signal_that_a_run_handles():
    to_shell, number, seconds = slurm.warning(SCRIPT)
    assert not to_shell, "with B: the signal reaches the shell only, and the run is killed"
    assert number in signals.PATIENT
    assert seconds >= 120
    assert f"STOPPED_BY_USR1=$((128 + {number.value}))" in SCRIPT.read_text("utf-8")
    assert slurm.options(SCRIPT).keys() >= {"requeue", "open-mode", "time"}


def test_the_options_of_the_example_exist():
    [line] = [line for line in SCRIPT.read_text("utf-8").splitlines() if line.startswith("srun suite run")]
    named = set(re.findall(r"--[a-z-]+", line))
    assert {"--resume", "--threads"} <= named
    assert named <= commands_below(typer.main.get_command(app.app))["run"]


def test_the_options_of_a_script_are_read(tmp_path):
    script = tmp_path / "job.sbatch"
    script.write_text("#SBATCH --requeue\n##SBATCH --gres=gpu:1\n#SBATCH --signal=B:TERM@60\n")
    assert slurm.options(script) == {"requeue": "", "signal": "B:TERM@60"}
    assert slurm.warning(script) == (True, signal.SIGTERM, 60)
