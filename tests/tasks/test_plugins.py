"""Third-party tasks: a file of the user's, and an installed package with entry points."""

from __future__ import annotations

import sys

import pytest

import tasks
from tasks import registry
from tasks.base import DataError
from tests.tasks.third_party import FILES, NAMED, REASONS, installed_in, write_file, write_installed


@pytest.fixture
def installed(tmp_path):
    with installed_in(tmp_path) as folder:
        yield folder


def test_a_class_in_a_file_is_a_task_whose_origin_is_the_content_of_the_file(tmp_path):
    path = write_file(tmp_path, None)
    first = tasks.origin(f"{path}:Sorting")
    assert tasks.get(f"{path}:Sorting").name == "sorting"
    assert tasks.get(f"{path}:Sorting") is tasks.get(f"{path}:Sorting")
    assert first.startswith("mine.py@")
    assert first.partition("@")[2] == tasks.origin(NAMED).partition("@")[2]
    path.write_text(path.read_text("utf-8") + "# changed\n")
    assert tasks.origin(f"{path}:Sorting") != first


@pytest.mark.parametrize("name", FILES)
def test_an_unusable_file_is_refused_in_one_line_that_names_the_file(tmp_path, name):
    text, class_name, said = FILES[name]
    path = write_file(tmp_path, text)
    with pytest.raises(DataError) as refused:
        tasks.get(f"{path}:{class_name}")
    assert said in str(refused.value)
    assert "mine.py" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    for ask in (tasks.get, tasks.origin):
        with pytest.raises(tasks.UnknownTask, match=r"none\.py' does not exist"):
            ask(f"{tmp_path}/none.py:Sorting")


def test_a_file_that_was_fixed_is_read_again(tmp_path):
    path = write_file(tmp_path, "class Mine(:\n")
    with pytest.raises(DataError, match="SyntaxError"):
        tasks.get(f"{path}:Sorting")
    write_file(tmp_path, None)
    assert tasks.get(f"{path}:Sorting").__name__ == "Sorting"


def test_a_package_task_is_listed_after_the_built_ins_and_loaded(installed):
    assert tasks.names()[0] == "sotu"
    assert tasks.names().count("sotu") == 1
    assert "sorting" in tasks.names()
    assert tasks.get("sorting").__module__ == "sorting_tasks"
    assert (tasks.origin("sorting"), tasks.origin("mqar")) == ("sorting-tasks 1.2", "built-in")
    assert tasks.origin("no such task") == "unknown"


@pytest.mark.parametrize("name", REASONS)
def test_an_unusable_entry_point_is_refused_and_the_others_are_usable(installed, name):
    with pytest.raises(DataError) as refused:
        tasks.get(name)
    assert REASONS[name] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert tasks.get("sorting").name == "sorting"
    assert tasks.get("mqar").name == "mqar"


def test_a_name_that_two_packages_claim_is_refused(installed, tmp_path, monkeypatch):
    other = write_installed(tmp_path / "other", "rival", "0.3", "sorting = sorting_tasks:Sorting")
    monkeypatch.syspath_prepend(str(other))
    registry._entries.cache_clear()
    with pytest.raises(DataError, match="'sorting' is claimed by") as refused:
        tasks.get("sorting")
    assert "rival 0.3" in str(refused.value)
    assert "sorting-tasks 1.2" in str(refused.value)


def test_looking_up_a_built_in_never_imports_third_party_code(installed, tmp_path):
    path = write_file(tmp_path, "raise SystemExit('the file was run')\n")
    assert registry.built_in(f"{path}:Sorting") is None
    assert registry.built_in("sorting") is None
    assert "sorting_tasks" not in sys.modules
    sotu = registry.built_in("sotu")
    assert sotu is not None
    assert sotu.name == "sotu"


def test_a_misspelt_package_task_is_suggested(installed):
    with pytest.raises(tasks.UnknownTask, match="did you mean 'sorting'"):
        tasks.get("sortin")
