"""Races with other runs than those that took part."""

from __future__ import annotations

import json
from pathlib import Path

from suite.submissions import entry
from tests.suite.submissions.attacks.attack import attack
from tests.suite.submissions.made import Content, edit_document, forge, path_of, relist


@attack("a seed dropped", "recount", "races: its records give another result")
def dropped(folder: Path) -> None:
    races = json.loads((folder / entry.NAME).read_text())["races"]
    path_of(folder, seed=5).unlink()
    relist(folder)
    edit_document(folder, lambda content: content.update(races=races))


@attack("a record dropped, the list of records not", "recount", "is listed, and is not here")
def dropped_unlisted(folder: Path) -> None:
    path_of(folder, seed=5).unlink()


@attack("a seed duplicated", "recount", "the same training losses")
def duplicated(folder: Path) -> None:
    content = json.loads(path_of(folder, seed=4).read_text())
    path_of(folder, seed=5).write_text(json.dumps(content))

    def change(content: Content) -> None:
        content.update(id=content["id"][:-1] + "5", seed=5)
        content["config"]["seed"] = 5

    forge(folder, change, path_of(folder, seed=5))


@attack("a seed replaced by a better one", "recount", "seed: 17 is in no race")
def other_seed(folder: Path) -> None:
    def change(content: Content) -> None:
        content.update(seed=17)
        content["config"]["seed"] = 17

    forge(folder, change, path_of(folder, seed=5))


@attack("a learning rate outside the race", "recount", "is no rate of the race")
def other_rate(folder: Path) -> None:
    forge(folder, lambda content: content["config"]["train"].update(lr=0.0025), path_of(folder, seed=5))


@attack("the weight decay tuned too", "recount", "only the learning rate is tuned")
def tuned_decay(folder: Path) -> None:
    forge(folder, lambda content: content["config"]["train"].update(weight_decay=0.2), path_of(folder, seed=5))


@attack("more runs in the race than recorded", "recount", "races: its records give another result")
def fewer_runs(folder: Path) -> None:
    edit_document(folder, lambda content: content["races"][0].update(runs=content["races"][0]["runs"] + 3))


@attack("another rate presented as the chosen one", "recount", "races: its records give another result")
def chosen(folder: Path) -> None:
    edit_document(folder, lambda content: content["races"][0].update(chosen=0.006))


@attack("a record copied under another name", "recount", "this record belongs in")
def renamed(folder: Path) -> None:
    path_of(folder, seed=5).rename(path_of(folder).with_name("better.json"))
    relist(folder)


@attack("the same run twice", "recount", "the same config (identity)")
def twice(folder: Path) -> None:
    copy = path_of(folder).with_name("again.json")
    copy.write_text(path_of(folder, seed=5).read_text())
    forge(folder, lambda content: content.update(id="again"), copy)


@attack("a record of another author in an entry", "recount", "the same id")
def stolen(folder: Path) -> None:
    other = folder.parent / "eve" / entry.RECORDS / path_of(folder).parent.name
    other.mkdir(parents=True)
    (other / path_of(folder).name).write_text(path_of(folder).read_text())
    (other.parents[1] / entry.NOTES).write_text("mine\n")
    relist(other.parents[1], "eve")
