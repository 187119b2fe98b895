"""Fixtures of the suite's tests: a separate runs folder per test, and the command line in this process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch


@dataclass(frozen=True)
class Ended:
    """A command's exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """`SUITE_HOME`: a folder of this test, which does not exist yet."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("SUITE_HOME", str(folder))
    torch.set_num_threads(1)
    return folder


@pytest.fixture
def suite(monkeypatch, capsys) -> Command:
    """Calls the command line in this process, without tracking."""
    from suite.cli import app

    monkeypatch.setenv("SUITE_TRACKING", "off")

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["suite", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app.main()
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, out, err)

    return call


@pytest.fixture(scope="package", autouse=True)
def _read_embedded_data_once():
    """Reads each data set once, because decompression takes longer than the tiny runs."""
    from tasks import embedded

    read = embedded.read
    embedded.read = functools.lru_cache(maxsize=None)(read)
    yield
    embedded.read = read
