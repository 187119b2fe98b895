"""A process that waits for a lost one and cannot end by itself is ended, after its last words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from suite.records import record
from suite.training import execution
from suite.training.job import Job
from suite.training.parallel import lifeline

ROOT = Path(__file__).resolve().parents[4]
#: Rank 1, which waits for ever, as in a collective operation with a process that was killed.
WAITING = """
import sys, time
from suite.training.parallel import lifeline

class Store:
    def get(self, key):
        return sys.argv[1].encode()

lifeline.GRACE_S = 0.2
rank = lifeline.Lifeline(1, 2, "127.0.0.1", Store())
def last_words(lost):
    print(lost, flush=True)
    {then}
rank.last_words = last_words
{settled}
time.sleep(60)
"""


class Announced(dict[str, str]):
    """A store of which the test reads what rank 0 announces."""

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def get(self, key: str, *_: object) -> bytes:  # type: ignore[override]
        return self[key].encode()


def lost_rank_0(then: str, settled: str = "") -> tuple[subprocess.Popen[str], socket.socket]:
    """A waiting process, and the end of its connection that rank 0 has."""
    store, made = Announced(), list[dict[int, socket.socket]]()
    accepting = threading.Thread(target=lambda: made.append(lifeline._accept(2, "127.0.0.1", store)))
    accepting.start()
    while lifeline.ADDRESS not in store:
        time.sleep(0.01)
    code = WAITING.format(then=then, settled=settled)
    process = subprocess.Popen(
        [sys.executable, "-c", code, store[lifeline.ADDRESS]], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    accepting.join()
    return process, made[0][1]


@pytest.mark.parametrize("then", ["pass", "raise SystemExit(0)"], ids=["written", "raised"])
def test_a_rank_that_waits_for_a_lost_one_is_ended_after_its_last_words(then):
    process, link = lost_rank_0(then)
    try:
        link.close()
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert out.strip() == f"rank 0 {lifeline.SILENT}"
    assert process.returncode == 1


def test_a_rank_that_needs_no_other_one_is_not_ended():
    process, link = lost_rank_0("pass", settled="rank.settle()")
    try:
        link.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=1.5)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "resumed"])
@pytest.mark.parametrize("other", [False, True], ids=["alone", "another writes"])
def test_a_rank_writes_the_record_of_a_lost_run_unless_another_one_does(tmp_path, monkeypatch, earlier, other):
    """Also where the run was resumed and has an earlier record."""
    path, written = tmp_path / record.NAME, list[str]()
    if earlier:
        path.write_text("earlier")
        os.utime(path, (1, 1))
    monkeypatch.setattr(execution, "assemble", lambda _job, ending, *_: ending.error)
    monkeypatch.setattr(execution, "write_record", lambda _job, made, _: written.append(made))
    job = SimpleNamespace(folder=tmp_path, ranks=SimpleNamespace(reports_loss_after=0.5))
    before = record.stamp(tmp_path)
    if other:
        threading.Timer(0.1, path.write_text, ("by another rank",)).start()
    execution._record_loss(cast(Job, job), "rank 0 was lost", print, before)
    assert written == ([] if other else ["rank 0 was lost"])
