"""The entries in `leaderboards` verify, and some of their runs are trained again."""

from __future__ import annotations

import pytest

from suite.errors import UserError
from suite.records import badges
from suite.submissions.verify import verify
from tests.test_architecture import ROOT

BOARDS = ROOT / "leaderboards"


@pytest.mark.slow
def test_the_published_entries_verify_and_two_of_their_runs_replay(suite):
    ended = suite("verify", str(BOARDS), "--replay", "2")
    assert ended.code == 0, ended.out
    assert "2 replayed: no fault" in ended.err


def test_the_published_badges_can_be_read():
    assert badges.read(BOARDS).checked is not None


def test_a_folder_without_entries_is_no_entry(tmp_path):
    with pytest.raises(UserError, match="holds no entry"):
        verify(tmp_path)
