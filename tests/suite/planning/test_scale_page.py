"""`docs/scale.md` shows what `suite plan` prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from suite.cli.commands.planning import plan
from suite.planning import check
from suite.planning.this_machine import CALIBRATION, CALIBRATION_TASKS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "scale.md").read_text("utf-8")
LARGE = PAGE.split("## Ten mixers")[1].split("\n## ")[0]
Shown = Callable[..., str]


def tables(text: str) -> list[str]:
    """Markdown tables with the line above them."""
    return re.findall(r"\*\*[^\n]+\*\*\n\n(?:\|[^\n]*\n?)+", text)


def test_the_check_table_has_every_run_and_its_sentence_counts_them():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if " · " in line[:40]][1:]
    calibration = [f"{task} · {mixer} (calibration)" for task, mixer in CALIBRATION]
    calibration += [f"{task} · {mixer} (calibration)" for task, mixer in product(CALIBRATION_TASKS, check.MIXERS)]
    others = [f"{task} · {mixer}" for task, mixer in product(check.TASKS, check.MIXERS)]
    assert [row[0] for row in rows] == calibration + others
    errors = [[abs(float(row[i].strip("%"))) / 100 for i in (5, 8, 4)] for row in rows[len(calibration) :]]
    limits = (check.TIME, check.MEMORY, check.TIME)
    time, memory, common = (sum(e[i] <= limit for e in errors) for i, limit in enumerate(limits))
    counted = f"{time} are within 15% in time ({common} by common rates) and {memory} within 10% in memory."
    assert f"Of {len(others)} other runs, {counted}" in PAGE


def test_the_single_runs_add_up_to_the_total_of_the_page():
    first = tables(LARGE)[0]
    hours = [float(line.split(" | ")[-2].replace(",", "")) for line in first.splitlines()[4:]]
    assert len(hours) == 10
    assert f"takes {sum(hours):,.0f} GPU hours on 8 GPUs" in LARGE


@pytest.fixture(scope="module")
def counted_once():
    """Counting takes a minute; it does not depend on the GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "count_board", cache(plan.count_board))
        yield


@pytest.mark.slow
@pytest.mark.xdist_group("scale page")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("gpus", ["8", "64", "512"])
def test_the_tables_of_ten_mixers_are_what_the_command_prints(suite, counted_once, gpus):
    command = re.search(r"```\nsuite (plan .*?)\n```", LARGE, re.DOTALL)
    assert command
    words = shlex.split(command[1].replace("\\\n", " "))
    words[words.index("--gpus") + 1] = gpus
    shown = suite(*words, "--markdown")
    assert shown.code == 0, shown.err
    here = tables(LARGE.split(f"### On {gpus} GPUs")[1].split("\n### ")[0])
    assert len(here) >= 2
    printed = [table.strip() for table in tables(shown.out)]
    assert all(table.strip() in printed for table in here)
    sharded = suite(*words, "--parallel", "fsdp", "--markdown").out
    softmax = re.search(r"\| softmax \|.* \| ([\d,.]+) \| [\d.]+ \|", tables(sharded)[0])
    assert softmax
    assert gpus == "8" or softmax[1] in PAGE.split("**FSDP.**")[1]
