"""Processes that a command starts: where they are reached, the signals that they get, and how long they may last."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from suite.training.parallel import environment, launch

#: Ends with 40 + its rank when SIGUSR1 or SIGTERM comes, or ignores both.
CODE = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, (lambda *_: sys.exit(40 + rank)) if "{does}" == "ends" else signal.SIG_IGN)
open(os.path.join("{folder}", str(rank)), "w").close()
if "{does}" == "fails" and rank == 1:
    sys.exit(3)
time.sleep(60)
"""


@pytest.fixture
def ranks(monkeypatch, tmp_path):
    """Lets `launch` start two short programs; waits until both have installed their handlers."""
    started: list[subprocess.Popen[bytes]] = []

    def planted(does: str) -> list[subprocess.Popen[bytes]]:
        def start(rank: int, devices: int, port: int, arguments: object) -> subprocess.Popen[bytes]:
            code = CODE.format(does=does, folder=tmp_path)
            process = subprocess.Popen(
                [sys.executable, "-c", code], env={**os.environ, "RANK": str(rank)}, process_group=0
            )
            started.append(process)
            return process

        monkeypatch.setattr(launch, "_start", start)
        return started

    yield planted
    assert all(process.poll() is not None for process in started)


def signals(folder, *numbers: int) -> None:
    """Sends signals to this process once both programs are ready."""

    def send() -> None:
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.02)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    threading.Thread(target=send).start()


def test_a_signal_reaches_all_ranks_and_the_code_is_rank_0s(ranks, tmp_path):
    started = ranks("ends")
    before = signal.getsignal(signal.SIGUSR1)
    signals(tmp_path, signal.SIGUSR1)
    assert launch.launch(2, [], threads=1) == 40
    assert [process.returncode for process in started] == [40, 41]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_second_sigterm_ends_the_ranks_at_once_and_a_second_warning_does_not(ranks, tmp_path):
    ranks("ignores")
    signals(tmp_path, signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM)
    began = time.monotonic()
    assert launch.launch(2, [], threads=1) == 128 + signal.SIGKILL
    assert time.monotonic() - began > 0.8


def test_ranks_that_outlast_a_failed_one_are_ended(ranks, monkeypatch):
    monkeypatch.setattr(launch, "END_S", 0.5)
    started = ranks("fails")
    assert launch.launch(2, [], threads=1) == 3
    assert started[0].returncode == -signal.SIGKILL


def test_the_ranks_find_each_other_on_the_loopback_interface_alone(monkeypatch):
    listening = []

    def start(rank: int, devices: int, port: int, arguments: object) -> subprocess.Popen[bytes]:
        listening.append(
            [c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN" and c.laddr.port == port]
        )
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(launch, "_start", start)
    assert launch.launch(2, [], threads=1) == 0
    assert [address.ip for each in listening for address in each] == ["127.0.0.1"] * 2


def test_ranks_of_one_machine_exchange_tensors_on_the_loopback_interface(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    environment.keep_on_this_machine()
    assert os.environ["GLOO_SOCKET_IFNAME"] in {name for _, name in socket.if_nameindex()}
    assert os.environ["GLOO_SOCKET_IFNAME"].startswith("lo")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    environment.keep_on_this_machine()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def test_only_ranks_of_one_machine_stay_on_it(monkeypatch):
    names = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "node7", "MASTER_PORT": "1", "LOCAL_RANK": "0"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    for local_world, expected in (("2", ("127.0.0.1", True)), ("1", ("node7", False)), ("", ("node7", False))):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local_world)
        here = environment.place()
        assert here is not None
        assert (here.host, here.one_machine) == expected
