"""Records of every domain, ending and earlier version are read; those that contradict themselves are not."""

from __future__ import annotations

from typing import Any

import pytest

from backbones.mixers.fem.fem import FemSoftmax, KeyedFemConfig
from suite.config.identity import introduced
from tasks.images.fashion_mnist import FashionMnist, FashionMnistOptions
from tests.suite.records import edited
from tests.suite.records.faults import fault_of, parsed, with_hashes
from tests.suite.tiny import made_record


def test_a_finished_run_without_its_results_is_refused(sound):
    nothing: dict[str, Any] = {"selection": None, "timing": None, "metrics": {}, "n_evaluated": {}, "loss_trace": []}
    for name, value in nothing.items():
        assert fault_of({**sound, name: value}).startswith(name)


@pytest.mark.parametrize("status", ["failed", "diverged", "interrupted"])
def test_a_run_that_did_not_finish_has_a_reason_and_no_results(sound, status):
    unfinished = edited.plain(made_record("fem", status=status))
    assert fault_of(unfinished) == ""
    assert fault_of({**unfinished, "error": None}).startswith("error")
    for name in ("metrics", "n_evaluated", "selection", "timing"):
        assert fault_of({**unfinished, name: sound[name]}) != ""


def test_a_diverged_run_may_have_the_figures_of_its_untrained_model(sound):
    diverged = edited.plain(made_record("fem", status="diverged"))
    figures = {name: {s: sound[name][s] for s in ("valid", "test")} for name in ("metrics", "n_evaluated")}
    assert fault_of({**diverged, **figures}) == ""
    assert fault_of({**diverged, **figures, "metrics": {"test": figures["metrics"]["test"]}}).startswith("metrics")
    assert fault_of({**diverged, **figures, "n_evaluated": {"valid": 1, "test": 1}}).startswith("n_evaluated")
    assert fault_of({**diverged, **figures, "status": "failed"}).startswith("metrics")


@pytest.mark.parametrize("task", ["sotu", "household-power", "mqar", "fashion-mnist"])
@pytest.mark.parametrize("mixer", ["softmax", "hyperglu"])
def test_a_sound_record_of_every_domain_is_accepted(task, mixer):
    assert fault_of(edited.plain(made_record(mixer, task=task))) == ""


def test_a_record_older_than_a_field_of_its_certificate_is_read(sound):
    without = {name: value for name, value in sound["certificate"].items() if name != "flops_verified"}
    old = with_hashes({**sound, "certificate": without})
    assert sound["certificate"]["flops_verified"] is True
    assert fault_of(old) == ""
    assert "flops_verified" not in parsed(old).content()["certificate"]
    forged = edited.changed(sound, ("certificate", "flops_verified"), False)
    assert fault_of(forged).startswith("certificate.flops_verified")


def test_a_record_is_read_without_importing_a_third_partys_code(sound, monkeypatch):
    """Its counts of its own model are taken as recorded; what does not depend on its code is checked."""
    theirs = {"mixer": "mine.py:Mine", "mixer_origin": "mine.py@0123456789ab"}
    options = {"causal": False, "heads": 2, "width": 7, "kinds": ["a", "b"]}
    content = {
        **sound,
        "config": {**sound["config"], **theirs, "mixer_options": options},
        "certificate": {**sound["certificate"], "mixer": theirs["mixer"], "mixer_options": options},
        "code": {**sound["code"], "mixer_origin": theirs["mixer_origin"]},
    }
    content = with_hashes(content)
    monkeypatch.setattr("backbones.mixers.registry._load_file", lambda *_: pytest.fail("a file was loaded"))
    monkeypatch.setattr("backbones.mixers.registry._load_entry", lambda *_: pytest.fail("a package was loaded"))
    assert fault_of(content) == ""
    read = parsed(content)
    assert not read.recounted
    assert read.config.mixer_options.model_dump() == options
    assert fault_of(edited.changed(content, ("certificate", "total_parameters"), 1)) == ""
    for name, value in (("reference_parameters", 1), ("ratio", 0.5), ("matched", False), ("dim", 1), ("hybrid", [1])):
        assert fault_of(edited.changed(content, ("certificate", name), value)).startswith(f"certificate.{name}")
    for origin in ("built-in", "baseline", "other.py@0123456789ab", "a-package 1.0"):
        forged = edited.changed(content, ("config", "mixer_origin"), origin)
        assert fault_of(forged).startswith("config.mixer_o")


def test_an_option_added_later_leaves_a_record_as_it_was(sound, monkeypatch):
    class LaterData(FashionMnistOptions):
        added: int = introduced(3)

    class LaterMixer(KeyedFemConfig):
        added: bool = introduced(False, now=True)

    monkeypatch.setattr(FashionMnist, "Options", LaterData)
    monkeypatch.setattr(FemSoftmax, "Config", LaterMixer)
    read = parsed(sound)
    assert (read.config.data.model_dump()["added"], read.config.mixer_options.model_dump()["added"]) == (3, False)
    assert edited.plain(read) == sound
    written = edited.changed(sound, ("config", "data", "added"), 3)
    assert fault_of(written).startswith("config.data.added")  # records leave it out


def test_a_record_of_an_earlier_version_is_read_and_not_counted_again(sound, monkeypatch):
    monkeypatch.setattr(FemSoftmax, "version", 99)
    monkeypatch.setattr(FashionMnist, "version", 99)
    assert fault_of(sound) == ""
    assert not parsed(sound).recounted
    assert fault_of(edited.changed(sound, ("certificate", "flops"), 1)) == ""
    assert fault_of(edited.changed(sound, ("certificate", "reference_flops"), 1)).startswith(
        "certificate.reference_flops"
    )
    for name, current in (("task", 99), ("mixer", 99), ("training", 1)):
        assert fault_of(edited.changed(sound, ("versions", name), current + 1)).startswith(f"versions.{name}")
