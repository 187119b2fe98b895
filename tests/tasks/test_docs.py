"""The document on adding a task: its code runs, its recipe is valid, its tables are complete."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tasks.base import DOMAINS, Task
from tasks.contract.run import CHECKS
from tests.tasks.third_party import EXAMPLE, write_file

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "adding-a-task.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def test_the_tasks_in_the_code_keep_the_contract():
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks("python")), "adding-a-task.md", "exec", dont_inherit=True), names)
    assert names["results"]


def test_the_recipe_is_one_that_the_suite_reads(tmp_path):
    from suite.config.recipe import shipped_recipe

    recipe, entry_points = blocks("toml")
    assert tomllib.loads(entry_points)["project"]["entry-points"]["suite.tasks"]
    before, _, after = EXAMPLE.read_text("utf-8").partition('    recipes = """')
    path = write_file(tmp_path, f'{before}    recipes = """{recipe}"""{after.partition(chr(34) * 3)[2]}')
    assert shipped_recipe(f"{path}:Sorting", "board")["train"] == {"steps": 200, "batch_size": 64, "lr": 3e-3}
    assert shipped_recipe(f"{path}:Sorting", "quick")["model"]["dim"] == 64


def rows_of(heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    table = TEXT.partition(f"## {heading}")[2].partition("\n## ")[0]
    return {
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_the_table_of_checks_is_complete():
    assert rows_of("What the contract checks") == {check.id for check in CHECKS}


def test_the_table_of_parts_names_every_abstract_method_and_every_domain():
    assert Task.__abstractmethods__ <= rows_of("What a task defines")
    assert all(f"`{domain}`" in TEXT for domain in DOMAINS)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_links_lead_to_files(link):
    assert (ROOT / "docs" / link).exists()


def test_no_paragraph_has_more_than_60_words():
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.M | re.S)
    paragraphs = [p for p in re.split(r"\n\s*\n", prose) if not p.lstrip().startswith(("|", "#", "1."))]
    assert [p for p in paragraphs if len(p.split()) > 60] == []
