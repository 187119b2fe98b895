"""Replaying records that are drawn at random, so that no author can know which ones. The runs that decide a row come
first, and every race gets its turn.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import zip_longest

from suite.console import say
from suite.submissions.faults import Fault
from suite.submissions.races import races, result
from suite.submissions.replay import Replayed, obstacle, replay
from suite.submissions.verify import Verified


def replay_some(found: Verified, count: int, *, trusted: bool) -> dict[str, Replayed]:
    """Replays some of the verified records, and adds what is wrong to their faults. For one whose losses show nothing
    another is drawn, as long as fewer than `count` were drawn in vain.

    Args:
        found: from `verify`.
        count: how many.
        trusted: whether the mixers' files of the entries may run; each is announced before it does.

    Returns:
        The comparison by the record's path, of records whose losses can be compared.
    """
    if not count:
        return {}
    obstacles = {name: obstacle(made, found.sources, trusted=trusted) for name, made in found.records.items()}
    able = [name for name, reason in obstacles.items() if not reason]
    for reason in sorted({reason for reason in obstacles.values() if reason}):
        number = sum(each == reason for each in obstacles.values())
        say(f"{number} record(s) cannot be replayed: {reason}")
    done: dict[str, Replayed] = {}
    announced, in_vain = {("", "")}, 0
    for name in _order(found, able):
        if len(done) == count or in_vain == count:
            break
        if (source := _file(found, name)) not in announced:
            announced.add(source)
            say("executing the mixer's file {} ({})".format(*source))
        each = replay(found.records[name], found.sources)
        if each.incomparable:
            in_vain += 1
            say(f"{name} cannot be replayed: {each.incomparable}")
        else:
            done[name] = each
    found.faults += [Fault(name, each.fault, "replay") for name, each in done.items() if each.fault]
    return done


def _order(found: Verified, able: Sequence[str]) -> list[str]:
    """Names in the order in which they are drawn: a run of the chosen rate of each race in turn, then all others."""
    random, names = secrets.SystemRandom(), {id(found.records[name]): name for name in able}
    decisive = []
    for runs in races(found.records.values()):
        of_race = result(runs)
        final = of_race.finals[of_race.chosen] if of_race and of_race.chosen is not None else ()
        own = [names[id(made)] for made in final if id(made) in names]
        decisive.append(random.sample(own, len(own)))
    random.shuffle(decisive)
    first = [name for turn in zip_longest(*decisive) for name in turn if name is not None]
    others = sorted(set(able) - set(first))
    return [*first, *random.sample(others, len(others))]


def _file(found: Verified, name: str) -> tuple[str, str]:
    origin = found.records[name].config.mixer_origin
    return (str(found.sources[origin]), origin) if origin in found.sources else ("", "")
