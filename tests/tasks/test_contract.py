"""Every registered task keeps the task contract, on small local data in its own format."""

from __future__ import annotations

import pytest

import tasks
from tasks.base import DataError
from tasks.contract.run import run_checks
from tests.tasks.local_data import LOCAL

#: Checks that are not applicable to a task, and no others may be.
NOT_APPLICABLE = {
    "sotu": {"epochs"},  # windows at random positions
    "household-power": {"epochs"},  # more training windows than the check reads
    "wikitext2": {"epochs"},  # the windows of two epochs begin at different places
    "wikitext103": {"epochs"},
    "fineweb-edu": {"epochs"},
    "text": {"epochs"},
}


def test_every_registered_task_is_covered():
    assert set(LOCAL) == set(tasks.names())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if local.slow else []) for name, local in LOCAL.items()]
)
def test_the_contract(name, tmp_path, monkeypatch):
    local, cls = LOCAL[name], tasks.get(name)
    for attribute, value in local.published.items():
        monkeypatch.setattr(cls, attribute, value)
    folder = local.write(tmp_path) if local.write else None
    results = run_checks(cls, folder, cls.Options(**local.options))
    assert [(r.check, r.reason, r.shown_by) for r in results if r.status == "failed"] == []
    assert {r.check for r in results if r.status == "not applicable"} == NOT_APPLICABLE.get(name, set())


@pytest.mark.parametrize("name", [name for name in LOCAL if not tasks.get(name).needs_data_dir])
def test_a_task_that_reads_no_folder_refuses_one(name, tmp_path):
    with pytest.raises(DataError, match=r"--data-dir .* would have no effect"):
        tasks.get(name)(None, tmp_path)


@pytest.mark.parametrize("name", LOCAL)
def test_sizes_of_zero_are_refused(name):
    cls = tasks.get(name)
    for option in ("length", "patch", "horizon", "image_size"):
        if option in cls.Options.model_fields:
            least = -1 if cls.Options.model_fields[option].default == 0 else 0
            with pytest.raises(ValueError, match=option):
                cls.Options(**{option: least})
