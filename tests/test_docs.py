"""The documentation matches the code: names in tables, links, environment variables; paragraphs are short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import tasks
from backbones.mixers import registry

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
MAX_WORDS = 60
#: Reads of environment variables, and module constants that hold the name of one.
READ = re.compile(
    r"""environ(?:\.\w+\(|\[)\s*["']([A-Z][A-Z0-9_]*)["']|^[A-Z]+ = ["']([A-Z]+_[A-Z_]+)["']""", re.MULTILINE
)
#: Read or set for other programs, with no effect of their own that a user would look for.
OF_OTHERS = {"PYTHONPATH", "KINETO_LOG_LEVEL", "CUBLAS_WORKSPACE_CONFIG"}


def section(title: str) -> str:
    """The text of a section of the README."""
    return README.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """The names in backquotes in the first column of a section's tables."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def paragraphs(page: Path) -> list[str]:
    """Running text: no code, tables, lists or headings."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    blocks = [block.strip("\n") for block in re.split(r"\n\s*\n", text)]
    return [b for b in blocks if b and not re.match(r"[|#>\-*\d<]|    ", b)]


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split()]


def test_readme_lists_every_built_in_mixer():
    built_in = {
        name for name in registry.names() if registry.origin(name) == "built-in" and not name.startswith("fla/")
    }
    assert first_cells(section("Mixers")) == built_in


def test_readme_gives_the_paper_of_every_mixer():
    for line in section("Mixers").splitlines():
        if line.startswith("| `"):
            cells = line.split("|")
            name = cells[1].strip(" `")
            assert f"arXiv {cells[2].split(']')[0].strip(' [')}" == registry.get(name).paper


def test_readme_lists_every_built_in_task():
    assert first_cells(section("Tasks")) - {"board", "quick", "small", "paper"} == set(tasks.names())


def test_readme_lists_every_command():
    from suite.cli.app import app

    shown = set(re.findall(r"`suite ([a-z-]+)", section("Commands")))
    made = {each.name or each.callback.__name__.replace("_", "-") for each in app.registered_commands if each.callback}
    assert shown == made | {each.name for each in app.registered_groups}


def test_the_architecture_page_has_the_import_directions_that_are_tested():
    from tests.test_architecture import ORDER

    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    chain = next(line for line in page.splitlines() if line.startswith("`cli → "))
    assert chain.strip("`").split(" → ") == ORDER["suite"]
    assert all(f"`suite/{part}`" in page for part in ORDER["suite"] if (ROOT / "suite" / part).is_dir())


def test_readme_lists_every_environment_variable_of_the_suite():
    code = tracked("suite/*.py", "tasks/*.py", "backbones/*.py", "kernels/*.py", "tests/suite/tracking/*.py")
    used = {name for path in code for names in READ.findall(path.read_text("utf-8")) for name in names if name}
    listed = {cell.split("=")[0] for cell in first_cells(section("Environment variables"))}
    assert {"SUITE_HOME", "SUITE_CACHE", "CXX", "SUITE_TRITON_KERNELS"} <= used
    assert used - OF_OTHERS <= listed
    assert {name for name in listed if name.startswith("SUITE_")} <= used


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paragraphs_have_at_most_60_words(page):
    assert not [p for p in paragraphs(page) if len(p.split()) > MAX_WORDS]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_lead_to_files(page):
    text = page.read_text("utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    links = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", prose) if not target.startswith("http")]
    missing = [target for target in links if target and not (page.parent / target).exists()]
    paths = re.findall(r"`((?:suite|tasks|backbones|kernels|tests|examples|leaderboards)/[\w./-]+)`", text)
    if not page.name.startswith("adding-"):  # those name files that the reader is going to write
        missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing
