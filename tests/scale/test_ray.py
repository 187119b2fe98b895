"""Sweeps on Ray: the same records as local ones, whatever dies; nothing is left running."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.scale.sweeps import (
    Records,
    assert_all_end,
    assert_equal,
    carried_out,
    command,
    commands,
    descendants,
    ended,
    head_of,
    in_the_middle,
    interrupt,
    ray_cluster,
    records,
    refusal,
    started,
    wait_until,
    workers,
)

pytestmark = pytest.mark.scale

ON_RAY = ("--on", "ray", "--jobs", "2", "--threads", "1")
ENDLESS = ("steps=200000", "evals=1")


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Records:
    """The records of the sweep on this machine."""
    runs = tmp_path_factory.mktemp("local") / "runs"
    carried_out(runs, command("--on", "local", "--jobs", "2", "--threads", "1"))
    return records(runs)


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with ray_cluster(cpus=2) as address:
        yield address


def listening(processes: list[psutil.Process]) -> set[str]:
    """The addresses at which processes accept connections."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found |= {each.laddr.ip for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
    return found


def test_a_killed_worker_costs_no_run_and_records_equal_those_of_a_local_sweep(runs, local):
    with started(runs, command(*ON_RAY)) as process:
        wait_until(lambda: len(ended(runs)) >= 2, process)
        wait_until(lambda: in_the_middle(process), process)[0].send_signal(signal.SIGKILL)
        before = ended(runs)
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert json.loads(out)["errors"] == []
    assert {path: ended(runs)[path] for path in before} == before
    made = records(runs)
    assert len(made) == 6
    assert sum(bool(each.resumed_at) for each in made.values()) == 1, "the killed worker was not in a run's middle"
    assert_equal(made, local)


def test_a_stopped_sweep_leaves_no_process_and_resumes_without_repeating_a_run(runs, local):
    with started(runs, command(*ON_RAY)) as process:
        wait_until(lambda: ended(runs) and in_the_middle(process), process)
        children = descendants(process)
        words = [word for line in commands(children).values() for word in line]
        interrupt(process)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command continues" in err
    assert_all_end(children)
    folders = {Path(word.split("=")[1]) for word in words if word.startswith("--log_dir=")}
    assert folders
    assert not any(folder.exists() for folder in folders)
    before = ended(runs)
    assert 0 < len(before) < 6
    carried_out(runs, command(*ON_RAY))
    made = records(runs)
    assert {path: ended(runs)[path] for path in before} == before
    assert any(each.resumed_at for each in made.values())
    assert_equal(made, local)


def test_an_own_cluster_is_reached_from_this_machine_alone_and_ends_with_its_sweep(runs):
    with started(runs, command("--on", "ray", "--threads", "2", sets=ENDLESS), OMP_NUM_THREADS="1") as process:
        (worker,) = wait_until(lambda: workers(process), process)
        wait_until(lambda: list(runs.glob("*/running.lock")), process)
        assert worker.environ()["OMP_NUM_THREADS"] == "2"
        children = descendants(process)
        assert {address.removeprefix("::ffff:") for address in listening(children)} == {"127.0.0.1"}
        head = head_of(children).environ()
        assert (head["RAY_AUTH_MODE"], head["RAY_USAGE_STATS_ENABLED"]) == ("token", "0")
        agents = [each for each, words in commands(children).items() if words[0].endswith("Agent")]
        process.kill()
    assert_all_end([each for each in children if each not in agents])
    for agent in agents:  # which notice it after a minute
        agent.kill()
    assert_all_end(agents)


def test_a_second_ctrl_c_ends_everything_at_once(runs):
    with started(runs, command("--on", "ray", "--threads", "1", sets=ENDLESS)) as process:
        wait_until(lambda: workers(process) and list(runs.glob("*/running.lock")), process)
        children = descendants(process)
        interrupt(process)
        assert process.stderr
        while "stopping" not in (line := process.stderr.readline()):  # two signals at once can arrive as one
            assert line, "the first Ctrl-C was not noticed"
        interrupt(process)
        process.communicate(timeout=120)
    assert_all_end(children)


def test_a_lost_head_is_one_line_that_says_how_to_continue(runs):
    with started(runs, command("--on", "ray", "--threads", "1", sets=ENDLESS)) as process:
        wait_until(lambda: workers(process) and list(runs.glob("*/running.lock")), process)
        children = descendants(process)
        head_of(children).kill()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    line = err.strip().splitlines()[-1]
    assert "the Ray cluster of this sweep is lost" in line
    assert "the same command continues" in line
    assert_all_end(children)


def test_a_running_cluster_is_used_as_far_as_it_reaches_and_stays(runs, local, cluster):
    words = command("--on", "ray", "--address", cluster, mixers=("softmax",))
    found = carried_out(runs, words)
    assert [race["chosen"] for race in found["races"]] == [1e-3]
    assert_equal(records(runs), local)
    assert carried_out(runs, words) == found


def test_a_run_that_no_machine_can_hold_is_refused_in_one_line(runs, cluster):
    on = ("--on", "ray", "--address", cluster)
    expected = "no machine of the Ray cluster has the 64 CPUs of a run; lower --threads"
    assert expected in refusal(runs, command(*on, "--threads", "64"))
    assert "1 CPU and 0.5 GPU" in refusal(runs, command(*on, "--gpus-per-run", "0.5", "--device", "auto"))


def test_a_runs_folder_that_workers_do_not_see_is_refused_in_one_line(runs, cluster):
    hide = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*hide, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a machine whose disk others do not see needs mount namespaces")
    runs.mkdir()
    words = [*hide, 'mount -t tmpfs none "$SUITE_HOME" && exec "$0" "$@"']
    line = refusal(runs, [*words, *command("--on", "ray", "--address", cluster)])
    assert f"does not see the sweep's runs folder {runs}" in line
    assert "SUITE_HOME" in line
