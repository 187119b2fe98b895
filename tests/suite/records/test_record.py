"""Records: a strict schema, a hash over the content, and files that are written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backbones.mixers.priors.softmax import Softmax
from suite.config.identity import digest
from suite.records import record
from suite.records.checks import recount
from suite.records.record import RecordError
from tests.suite.tiny import made_record


@pytest.fixture
def written(tmp_path) -> Path:
    return record.write(tmp_path, made_record())


def edited(path: Path, change: Callable[[dict[str, Any]], None], *, reseal: bool = False) -> Path:
    content = json.loads(path.read_text())
    change(content)
    if reseal:
        del content["hash"]
        content["hash"] = digest(content)
    path.write_text(json.dumps(content))
    return path


def test_what_was_written_is_read_back_equal(written):
    assert record.read(written) == made_record().sealed()


def test_the_file_does_not_depend_on_the_order_of_fields(written):
    def turn(content):
        items = list(content.items())
        content.clear()
        content.update(reversed(items))

    assert record.read(edited(written, turn)) == made_record().sealed()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["metrics"]["test"].update(top1=0.51),
        lambda c: c["config"]["train"].update(lr=0.1),
        lambda c: c["certificate"].update(matched=False),
        lambda c: c.update(seed=1),
        lambda c: c.update(hash="0" * 64),
    ],
)
def test_an_edited_record_is_refused(written, change):
    with pytest.raises(RecordError, match="hash: it does not match"):
        record.read(edited(written, change))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda c: c.update(surplus=1), "surplus"),
        (lambda c: c["timing"].update(surplus=1), "timing.surplus"),
        (lambda c: c.pop("identity"), "identity"),
        (lambda c: c.update(status="won"), "status"),
        (lambda c: c.update(schema="mixer-suite/run/0"), "schema"),
        (lambda c: c["metrics"]["test"].update(top1="high"), "metrics.test.top1"),
        (lambda c: c["metrics"]["test"].update(top1=float("nan")), "NaN"),
        (lambda c: c["timing"].update(step_s=float("inf")), "Infinity"),
        (lambda c: c.update(loss_trace=[[1, float("nan")]]), "NaN"),
    ],
)
def test_a_record_that_does_not_fit_its_schema_is_refused_by_the_fields_name(written, change, where):
    with pytest.raises(RecordError) as caught:
        record.read(edited(written, change))
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_in_the_config_is_refused(written):
    with pytest.raises(RecordError):
        record.read(edited(written, lambda c: c["config"]["train"].update(lr=float("nan"))))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_never_gets_into_a_record(value):
    with pytest.raises(ValueError, match="finite"):
        made_record(value=value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00", '{"schema": 1}'])
def test_a_damaged_file_is_one_line(tmp_path, content):
    path = tmp_path / record.NAME
    path.write_text(content)
    with pytest.raises(RecordError) as caught:
        record.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_or_unreadable_file_is_one_line(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        record.read(tmp_path / record.NAME)
    (tmp_path / record.NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match="cannot be read"):
        record.read(tmp_path / record.NAME)


def test_a_record_over_the_limit_is_not_written(tmp_path):
    big = made_record().model_copy(update={"error": "x" * record.MAX_BYTES})
    with pytest.raises(RecordError, match="65536 are allowed"):
        record.write(tmp_path, big)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_record_whole(tmp_path, monkeypatch):
    record.write(tmp_path, made_record(value=0.5))
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        record.write(tmp_path, made_record(value=0.6))
    assert record.read(tmp_path / record.NAME).metrics["test"]["top1"] == 0.5
    assert [path.name for path in tmp_path.iterdir()] == [record.NAME]


def test_same_figures_compares_metrics_only_and_bit_for_bit():
    one = made_record(value=0.1 + 0.2)
    assert record.same_figures(one, made_record(value=0.1 + 0.2, name="other"))
    assert not record.same_figures(one, made_record(value=0.3))


def test_counts_of_a_third_partys_reference_are_those_of_softmax_itself(tmp_path, monkeypatch):
    """Counts are kept, so reading a record of foreign code must not change what the others are compared with."""
    made = made_record("softmax", 0.5)
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))  # nothing is counted there yet
    monkeypatch.setattr(recount, "_counted", {})
    foreign = made.config.model_copy(update={"mixer": "mine.py:Mine", "mixer_origin": "mine.py@" + "0" * 16})
    recount.reference(foreign, made.spec)
    options = Softmax.Config(causal=made.spec.causal, heads=made.config.model.heads)
    own = made.config.model_copy(update={"mixer_options": options})
    assert recount.certificate(own, made.spec)["flops_verified"] is True
