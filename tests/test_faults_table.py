"""docs/faults.md: every fault has a test, and every named test exists."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.test_architecture import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]


@pytest.fixture(scope="module")
def existing() -> set[str]:
    files = subprocess.run(["git", "ls-files", "tests"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = [(ROOT / name).read_text("utf-8") for name in files.split() if name.endswith(".py")]
    return {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}


def test_every_row_has_a_fault_what_happens_and_one_test():
    assert len(ROWS) > 30
    for row in ROWS:
        fault, happens, test = (cell.strip() for cell in row.strip("|").split("|"))
        assert fault
        assert happens
        assert re.fullmatch(r"`test_\w+`", test), row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_the_named_test_exists(row, existing):
    assert re.findall(r"`(test_\w+)`", row)[0] in existing


def test_no_fault_is_listed_twice():
    faults = [row.split("|")[1].strip() for row in ROWS]
    assert sorted(set(faults)) == sorted(faults)
