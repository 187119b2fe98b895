"""A sound entry of another machine, and a stand-in for training its runs again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.config.run_config import RunConfig
from suite.records import provenance
from suite.submissions.retraining import Failed
from tests.suite.submissions.made import MINE, copy_of, run

#: What rounding changes in the stand-in, up in half of the runs and down in the others.
SIGMA = 0.004


@pytest.fixture
def entry_folder(template, tmp_path, monkeypatch) -> Path:
    """`entries/ada`, as a clean checkout of the suite sees it."""
    monkeypatch.setattr(provenance, "_git", lambda *words: "" if words[0] == "status" else "a" * 40)
    return copy_of(template, tmp_path)


@pytest.fixture
def trained(template, monkeypatch) -> list[RunConfig]:
    """Configs that were trained, with a stand-in that gives what the sound entry has, up to rounding."""
    done: list[RunConfig] = []

    def figure(config: RunConfig, metric: str) -> float:
        done.append(config)
        file = template.parents[1] / "mine.py" if MINE in config.mixer else None
        honest = run(MINE if file else config.mixer, 2e-3, config.seed, file).metrics["test"][metric]
        sign = 1 if (config.seed % 2 == 0) == (config.train.lr == 2e-3) else -1
        return honest + sign * SIGMA

    monkeypatch.setattr("suite.submissions.reproduce.figure", figure)
    monkeypatch.setattr("suite.submissions.retraining.run_seconds", lambda *_: 0.5)
    return done


@pytest.fixture
def fails(monkeypatch) -> Callable[[str], None]:
    """Makes training fail with a message."""

    def set_message(message: str) -> None:
        def figure(*_: Any) -> float:
            raise Failed(message)

        monkeypatch.setattr("suite.submissions.reproduce.figure", figure)

    return set_message
