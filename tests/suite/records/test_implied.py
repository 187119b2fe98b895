"""Figures that follow from others: a record in which they contradict each other is refused."""

from __future__ import annotations

import math

import pytest

import tasks
from suite.records import record
from suite.records.record import RecordError
from tests.suite.records import edited
from tests.suite.tiny import made_record

#: Of each kind of data, a task and a metric that follows from another.
IMPLIED = [
    ("sotu", (), "bits_per_byte"),
    ("sotu", (), "perplexity"),
    ("wikitext2", (), "perplexity"),
    ("household-power", (), "loss"),
]


@pytest.mark.parametrize(("task", "sets", "name"), IMPLIED)
@pytest.mark.parametrize("split", ["test", "valid_last"])
def test_a_metric_that_contradicts_another_is_refused_by_its_name(tmp_path, task, sets, name, split):
    content = edited.plain(made_record("softmax", 1.25, task=task, sets=sets))
    record.read(edited.write(tmp_path, content))
    forged = edited.changed(content, ("metrics", split, name), 0.75)
    with pytest.raises(RecordError, match=rf"metrics\.{split}\.\w+: .* follows from its other metrics"):
        record.read(edited.write(tmp_path, forged))


@pytest.mark.parametrize("task", tasks.names())
def test_nothing_follows_from_figures_that_are_missing(task):
    assert tasks.get(task)().implied({}) == {}


def test_the_last_digit_may_differ(tmp_path):
    content = edited.plain(made_record("softmax", 1.25, task="sotu"))
    place, value = ("metrics", "test", "perplexity"), content["metrics"]["test"]["perplexity"]
    record.read(edited.write(tmp_path, edited.changed(content, place, math.nextafter(value, math.inf))))
    with pytest.raises(RecordError, match="follows from its other metrics"):
        record.read(edited.write(tmp_path, edited.changed(content, place, value * (1 + 1e-13))))
