"""Findings: what the records show about published claims, by tests that were written down before."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

import tasks
from backbones.mixers import registry
from suite.boards.board import boards
from suite.boards.findings import claim as claims
from suite.boards.findings.claim import Claim
from suite.boards.findings.document import document
from suite.boards.findings.measured import findings, overall
from suite.errors import UserError
from suite.statistics.comparisons import difference
from tests.suite.boards.test_verdicts import BASE, row_of, whole_race

ROOT = Path(__file__).resolve().parents[3]
EARLY, LATE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def claim(
    one: str, other: str, expects: str = "better", *, written: datetime = EARLY, task: str = "fashion-mnist"
) -> Claim:
    """A claim with the id `one-other-expects`."""
    made = Claim.model_validate(
        {
            "id": f"{one}-{other}-{expects}",
            "claim": "A | claim",
            "source": "a paper",
            "published": "large",
            "written": written,
            "tasks": (task,),
            "one": one,
            "other": other,
            "expects": expects,
            "sha256": "",
        }
    )
    return made.model_copy(update={"sha256": made.test_hash})


@pytest.fixture(scope="module")
def board():
    [found] = boards([made for mixer in BASE for made in whole_race(mixer)])
    return found


def test_a_claim_is_supported_contradicted_or_undecided_as_the_test_says(board):
    tests = [claim("fem", "softmax"), claim("no-mixing", "softmax"), claim("qk-norm", "softmax")]
    tests += [claim("fem", "softmax", "equivalent"), claim("qk-norm", "softmax", "equivalent")]
    assert [one.answer for one in findings(tests, [board])] == [
        "supported",
        "not supported",
        "undecided",
        "not supported",
        "undecided",
    ]


def test_unmeasured_tests_of_the_task_count_in_the_adjustment(board):
    tests = [claim("qk-norm", "softmax"), claim("aft", "softmax"), claim("gla", "softmax")]
    one, two, three = findings(tests, [board])
    scores = {mixer: row_of(board, mixer).figures.scores for mixer in ("qk-norm", "softmax")}
    assert one.p == pytest.approx(min(1.0, 3 * difference(scores["qk-norm"], scores["softmax"], "welch").p))
    assert (two.answer, three.answer) == ("not measured", "not measured")
    assert two.missing == "aft: no race"


def test_a_row_without_its_full_race_gives_no_answer():
    runs = [made for mixer in ("fem", "softmax") for made in whole_race(mixer)]
    [one] = findings([claim("fem", "softmax")], boards(runs[:-1]))
    assert one.answer == "not measured"
    assert one.missing == "softmax: 19 of 20 runs"


def test_a_test_that_was_written_after_the_first_run_is_marked(board):
    before, after = findings([claim("fem", "softmax"), claim("softmax", "fem", written=LATE)], [board])
    assert before.written_before
    assert not after.written_before
    rows = [line for line in document([before, after]).splitlines() if line.startswith("| fashion-mnist")]
    assert ["after the first run" in row for row in rows] == [False, True]


def test_a_finding_names_the_state_of_both_rows():
    bytes_of = {"fem": 2048, "softmax": 10240}
    runs = [
        made.model_copy(update={"certificate": made.certificate.model_copy(update={"state_bytes": size})}).sealed()
        for mixer, size in bytes_of.items()
        for made in whole_race(mixer)
    ]
    text = document(findings([claim("fem", "softmax")], boards(runs)))
    assert "| state kB |" in text
    assert "| 2.0 and 10.0 |" in text


def test_equivalence_needs_an_interval_inside_what_an_eighth_more_parameters_change():
    steep = {0.75: -0.2, 1.25: 0.2, 1.5: 0.4}
    curve = [
        made.model_copy(
            update={"metrics": {split: {"top1": made.metrics[split]["top1"] + gain} for split in ("valid", "test")}}
        ).sealed()
        for factor, gain in steep.items()
        for made in whole_race("softmax", sets=(f"width_factor={factor}",))
    ]
    runs = [made for mixer in ("softmax", "qk-norm", "fem") for made in whole_race(mixer)]
    tests = [claim("qk-norm", "softmax"), claim("qk-norm", "softmax", "equivalent")]
    assert [one.answer for one in findings(tests, boards(runs))] == ["undecided", "undecided"]
    assert [one.answer for one in findings(tests, boards([*runs, *curve]))] == ["equivalent", "supported"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "not measured"], "supported"),
        (["supported", "not supported"], "not supported"),
        (["supported", "undecided"], "undecided"),
        (["equivalent", "equivalent"], "equivalent"),
        (["not measured"], "not measured"),
    ],
)
def test_a_claim_over_several_boards_has_the_answer_that_they_share(answers, expected):
    assert overall(answers) == expected


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('other = "softmax"', 'other = "no-mixing"', "'fem-text': its test has the hash"),
        ('id = "fem-images"', 'id = "fem-text"', "two claims have the id 'fem-text'"),
        ('one = "fem"', "", "one: Field required"),
        ("[[claim]]", "[[claim]", "line"),
    ],
)
def test_a_changed_test_or_an_unusable_file_is_one_line(tmp_path, before, after, named):
    text = (ROOT / "leaderboards" / claims.NAME).read_text("utf-8")
    path = tmp_path / claims.NAME
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError) as error:
        claims.read(path)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_every_published_claim_is_about_registered_mixers_and_tasks():
    read = claims.read(ROOT / "leaderboards" / claims.NAME)
    assert len(read) >= 16
    for one in read:
        assert set(one.tasks) <= set(tasks.names())
        assert {name.split(" (")[0] for name in (one.one, one.other)} <= set(registry.names())


@pytest.mark.slow
def test_the_published_boards_and_findings_are_what_the_records_give(suite, tmp_path):
    folder = str(ROOT / "leaderboards")
    assert suite("leaderboard", "--records", folder, "--output", folder, "--check").code == 0
    shutil.copytree(folder, tmp_path / "copy")
    page = tmp_path / "copy" / "FINDINGS.md"
    page.write_text(page.read_text("utf-8").replace("not measured", "supported", 1), "utf-8")
    ended = suite("leaderboard", "--records", folder, "--output", str(tmp_path / "copy"), "--check")
    assert ended.code == 2
    assert "FINDINGS.md is not what its records give" in ended.err
