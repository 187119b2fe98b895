"""Commands against a store, and what its checks find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from suite.tracking.checks.store_checks import check_store


def use(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)


def suite(home: Path, *arguments: str, code: int = 0) -> str:
    """Runs a command in a process of its own; its standard output."""
    ended = subprocess.run(
        [sys.executable, "-m", "suite", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=home.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SUITE_HOME": str(home)},
    )
    assert ended.returncode == code, ended.stderr + ended.stdout
    assert "tracking:" not in ended.stderr, ended.stderr
    return ended.stdout


def faults(home: Path) -> dict[str, str]:
    """The checks that are not right, with their messages."""
    return {found.name: found.message for found in check_store(home) if not found.ok}
