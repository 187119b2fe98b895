"""Replaying records that are drawn at random, so that no author can know which ones."""

from __future__ import annotations

import secrets

from suite.console import say
from suite.submissions.faults import Fault
from suite.submissions.replay import Replayed, obstacle, replay
from suite.submissions.verify import Verified


def replay_some(found: Verified, count: int, *, trusted: bool) -> dict[str, Replayed]:
    """Replays some of the verified records, and adds what is wrong to their faults.

    Args:
        found: from `verify`.
        count: how many.
        trusted: whether the mixers' files of the entries may run; each is announced before it does.

    Returns:
        The comparison by the record's path.
    """
    if not count:
        return {}
    obstacles = {name: obstacle(made, found.sources, trusted=trusted) for name, made in found.records.items()}
    able = [name for name, reason in obstacles.items() if not reason]
    for reason in sorted({reason for reason in obstacles.values() if reason}):
        number = sum(each == reason for each in obstacles.values())
        say(f"{number} record(s) cannot be replayed: {reason}")
    drawn = secrets.SystemRandom().sample(able, min(count, len(able)))
    for file, origin in sorted({_file(found, name) for name in drawn} - {("", "")}):
        say(f"executing the mixer's file {file} ({origin})")
    done = {name: replay(found.records[name], found.sources) for name in drawn}
    found.faults += [Fault(name, each.fault, "replay") for name, each in done.items() if each.fault]
    return done


def _file(found: Verified, name: str) -> tuple[str, str]:
    origin = found.records[name].config.mixer_origin
    return (str(found.sources[origin]), origin) if origin in found.sources else ("", "")
