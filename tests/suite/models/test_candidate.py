"""Candidates: what `--mixer` names, looked up once; what ships with the suite is found without further imports."""

from __future__ import annotations

import sys

import pytest
import torch

import tasks
from backbones.baselines import registry as baselines
from backbones.baselines.base import BaselineError
from backbones.mixers import registry as mixers
from backbones.mixers.errors import MixerError
from suite.models.candidate import parse, registered
from suite.models.resolve import resolve_run
from tests.suite.tiny import tiny_sets

FOREIGN = "raise SystemExit('foreign code was imported')\n"


@pytest.fixture
def entry_points(tmp_path, monkeypatch):
    """An installed distribution whose entry points claim a new name and a built-in one."""
    info = tmp_path / "site" / "foreign-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[suite.mixers]\nforeign = foreign_mixers:A\nfem = foreign_mixers:A\n")
    (tmp_path / "site" / "foreign_mixers.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    mixers._entries.cache_clear()
    yield
    mixers._entries.cache_clear()


@pytest.mark.parametrize("name", ["softmax", "fem", "gla", *baselines.names()])
def test_what_ships_with_the_suite_is_found_with_or_without_imports(name):
    one, other = parse(name), registered(name)
    assert one == other
    assert one.name == name
    assert one.origin == ("baseline" if name.startswith("baseline/") else "built-in")


def test_a_lookup_for_records_imports_no_file_and_no_entry_point(tmp_path, entry_points):
    path = tmp_path / "mine.py"
    path.write_text(FOREIGN)
    before = set(sys.modules)
    for name in (f"{path}:Mine", "foreign", "baseline/unknown", "unknown", ""):
        assert registered(name) is None
    own, cls = registered("fem"), mixers.built_in("fem")
    assert own is not None
    assert cls is not None
    assert own.Options is cls.Config
    assert not [name for name in set(sys.modules) - before if "foreign" in name or name.startswith("_mixer_file")]
    with pytest.raises(SystemExit, match="foreign code"):
        parse(f"{path}:Mine")


def test_a_name_claimed_by_two_is_refused_for_runs_only(entry_points):
    with pytest.raises(MixerError, match="'fem' is claimed by"):
        parse("fem")
    assert registered("fem") is not None


def test_a_file_is_a_candidate_whose_origin_follows_its_content(tmp_path):
    path = tmp_path / "mine.py"
    text = "from backbones.mixers.deconstructed.variants import NoMixing\nclass Mine(NoMixing):\n    pass\n"
    path.write_text(text)
    one = parse(f"{path}:Mine")
    assert (one.name, one.origin.partition("@")[0], one.ranked, one.hybrids) == (f"{path}:Mine", "mine.py", True, True)
    path.write_text(text + "# changed\n")
    assert parse(f"{path}:Mine").origin != one.origin


@pytest.mark.parametrize(("name", "error"), [("fme", MixerError), ("baseline/rigde", BaselineError)])
def test_an_unknown_name_suggests_the_nearest(name, error):
    with pytest.raises(error) as caught:
        parse(name)
    assert caught.value.exit_code == 2
    assert name in str(caught.value)
    assert ("'fem'" if name == "fme" else "'baseline/ridge'") in str(caught.value)


@pytest.mark.parametrize("mixer", ["softmax", "random-qk", "baseline/ridge"])
def test_a_built_model_is_the_one_that_was_certified_and_follows_the_seed(mixer):
    def build(seed: int) -> torch.nn.Module:
        sets = tiny_sets("household-power")
        made = resolve_run(task="household-power", mixer=mixer, scale="board", sets=sets, seed=seed, unmatched=True)
        task = tasks.get("household-power")(made.config.data)
        plan, certificate = made.candidate.check(made.config, task.spec)
        torch.manual_seed(seed)
        model = made.candidate.build(made.config, task, plan)
        trained = [p for p in model.parameters() if p.requires_grad or made.candidate.name.startswith("baseline/")]
        assert sum(p.numel() for p in trained) == certificate.total_parameters
        return model

    one, again, other = (build(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    if mixer == "random-qk":
        assert not torch.equal(one["constant"], other["constant"])
