"""A connection between rank 0 and every other rank, which breaks when a process ends, however it ends.

A collective operation cannot be relied on for that: on GPUs it waits for a process that was killed. TCP reports the end
of a process at once, and of a machine after `MACHINE_S`.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from suite.safe_text import one_line
from suite.training.parallel.environment import LOOPBACK

#: How long a process may take to notice by itself that another one has ended, before it is ended.
GRACE_S = 10.0
MACHINE_S = 30
CONNECT_S = 60.0
ADDRESS = "suite/lifeline"  # in the store: rank 0's port, and the word that a rank connects with
BYE, RELAY, MAX_BYTES = "bye", "relay:", 4096
HERE = (LOOPBACK, "localhost", "::1")  # names that other machines have for themselves, too
SILENT = "ended without a message (it was killed, or had too little memory)"


class Store(Protocol):
    """What the ranks of a job find each other by: `torch.distributed.Store`."""

    def set(self, key: str, value: str) -> object: ...
    def get(self, key: str) -> bytes: ...


class Lifeline:
    """One process's end of the connections. A thread listens; nothing is sent until a process ends."""

    def __init__(self, rank: int, world: int, host: str, store: Store) -> None:
        """Connects all ranks; each of them calls it.

        Args:
            rank: of this process.
            world: number of processes.
            host: of rank 0.
            store: where rank 0 announces its port.
        """
        self.rank = rank
        #: Called when a process was lost and this one did not end within `GRACE_S`; the process then exits.
        self.last_words: Callable[[str], None] = lambda _: None
        self._lost: dict[int, str] = {}
        self._changed, self._settled = threading.Event(), threading.Event()
        self.dismissed = False  # whether rank 0 has said that the job is over
        self._others = _accept(world, host, store) if rank == 0 else {0: _connect(rank, host, store)}
        threading.Thread(target=self._listen, name="lifeline", daemon=True).start()

    def loss(self, wait_s: float = 0.0) -> str:
        """Which process was lost, and why; an empty text where none was within `wait_s` seconds."""
        self._changed.wait(wait_s)
        return "; ".join(f"rank {rank} {why}" for rank, why in sorted(self._lost.items()))

    def vanished(self, rank: int) -> bool:
        """Whether a process has ended without saying why: it can have written nothing."""
        return self._lost.get(rank) == SILENT

    def settle(self) -> None:
        """From now on the loss of another process does not end this one."""
        self._settled.set()

    def close(self, failure: str = "") -> None:
        """Announces the end of this process.

        Args:
            failure: why it ends before the others do; empty where all is well.
        """
        self.settle()
        for link in self._others.values():
            _send(link, failure or BYE)
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_WR)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, link in self._others.items():
                selector.register(link, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    lines = _lines(self._others[key.data])
                    if [self._hear(key.data, line) for line in lines][-1]:
                        selector.unregister(key.fileobj)

    def _hear(self, rank: int, line: str) -> bool:
        """Takes in a line of another process; whether it is the last one."""
        if line.startswith(RELAY):
            lost, _, why = line.removeprefix(RELAY).partition(" ")
            self._lose(int(lost), why)
            return False
        if line == BYE:
            self.dismissed = self.dismissed or rank == 0
        else:
            self._lose(rank, line or SILENT)
        return True

    def _lose(self, rank: int, why: str) -> None:
        first = not self._lost
        self._lost[rank] = why
        if self.rank == 0:  # the others are connected to rank 0 alone
            for other, link in self._others.items():
                if other != rank:
                    _send(link, f"{RELAY}{rank} {why}")
        self._changed.set()
        if first and not self._settled.is_set():
            threading.Thread(target=self._end, name="lifeline end", daemon=True).start()

    def _end(self) -> None:
        """Ends this process unless it does so by itself: it may wait for the lost one for ever."""
        if not self._settled.wait(GRACE_S):
            try:
                self.last_words(self.loss())
            finally:
                self.close(f"was ended, since {self.loss()}")
                os._exit(1)


def _accept(world: int, host: str, store: Store) -> dict[int, socket.socket]:
    word = secrets.token_hex(16)
    others: dict[int, socket.socket] = {}
    with _server(host) as server:
        server.settimeout(CONNECT_S)
        store.set(ADDRESS, f"{server.getsockname()[1]} {word}")
        while len(others) < world - 1:
            link, _ = server.accept()
            link.settimeout(CONNECT_S)
            given, _, rank = _message(link).partition(" ")
            if hmac.compare_digest(given.encode(), word.encode()) and rank.isdecimal():  # others may find the port
                others[int(rank)] = _watched(link)
            else:
                link.close()
    return others


def _server(host: str) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        if host not in HERE and ip_address(str(address[0])).is_loopback:  # Debian gives a machine's name 127.0.1.1
            return socket.create_server(("", 0))
        return socket.create_server((str(address[0]), 0), family=family)
    except OSError:  # a name of this machine that its own interfaces do not have
        return socket.create_server(("", 0))


def _connect(rank: int, host: str, store: Store) -> socket.socket:
    port, _, word = store.get(ADDRESS).decode().partition(" ")
    link = socket.create_connection((host, int(port)), timeout=CONNECT_S)
    link.sendall(f"{word} {rank}\n".encode())
    return _watched(link)


def _watched(link: socket.socket) -> socket.socket:
    """Blocks without limit, and asks now and then whether the other machine is still there."""
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", MACHINE_S // 2), ("TCP_KEEPINTVL", MACHINE_S // 6), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return link


def _send(link: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):
        link.sendall(one_line(text)[: MAX_BYTES // 8].encode() + b"\n")


def _message(link: socket.socket) -> str:
    return _lines(link)[0]


def _lines(link: socket.socket) -> list[str]:
    """One or more lines; a single empty text where the connection ended before the last of them did."""
    read = b""
    with contextlib.suppress(OSError):
        while not read.endswith(b"\n") and len(read) < MAX_BYTES and (more := link.recv(MAX_BYTES - len(read))):
            read += more
    if not read.endswith(b"\n"):
        return [""]
    return [one_line(line.strip()) for line in read.decode("utf-8", "replace").strip().split("\n")]
