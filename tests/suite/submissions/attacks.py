"""Attacks on `suite verify`: each forges a sound entry as an author could, who computes every hash again.

Every entry of `ATTACKS` has the name that docs/security.md has for it, the check that must find it, and a part of the
message that it must give.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from suite.records import badges
from suite.submissions import entry
from tests.suite.submissions.made import (
    MINE,
    SOURCE,
    Content,
    edit_document,
    forge,
    path_of,
    records,
    relist,
    write_source,
)

Answer = Literal["recount", "ranges", "replay", "reproduced"]
Forge = Callable[[Path], object]


@dataclass(frozen=True)
class Attack:
    """name: in docs/security.md; answer: what finds it; words: part of its message; forge: changes `entries/ada`."""

    name: str
    answer: Answer
    words: str
    forge: Callable[[Path], object]


ATTACKS: list[Attack] = []


def attack(
    name: str, answer: Answer, words: str = ""
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def add(function: Callable[[Path], object]) -> Callable[[Path], object]:
        ATTACKS.append(Attack(name, answer, words, function))
        return function

    return add


def of_record(name: str, answer: Answer, words: str, change: Callable[[Content], object], mixer: str = "fem") -> None:
    """An attack that changes one record and computes everything again."""
    ATTACKS.append(Attack(name, answer, words, lambda folder: forge(folder, change, path_of(folder, mixer))))


def set_metric(split: str, value: object, name: str = "top1") -> Callable[[Content], object]:
    return lambda content: content["metrics"][split].update({name: value})


def without_reading(folder: Path, old: str, new: str, path: Path | None = None) -> None:
    """Replaces text of a record's file, which may then be no JSON."""
    path = path or path_of(folder)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# Figures


@attack("a metric edited, hash as it was", "recount", "hash: it does not match")
def edited(folder: Path) -> None:
    without_reading(folder, '"test":{"loss":0.5', '"test":{"loss":0.4')


of_record("a metric edited to a value that no number of images gives", "ranges", "is no fraction of 2000 images",
          set_metric("test", 0.91234))  # fmt: skip
of_record("an accuracy in percent", "recount", "is not in [0, 1]", set_metric("test", 91.0))
of_record("a huge metric", "ranges", "is more than 1e+09", set_metric("test", 1e300, "loss"))
of_record("a validation metric edited, the selection not", "recount", "selection.value", set_metric("valid", 0.95))
of_record("a metric of the test set in the selection", "recount", "selection.value",
          lambda c: c["selection"].update(value=c["metrics"]["test"]["top1"] + 0.0005))  # fmt: skip
of_record(
    "examples of the test set left out", "recount", "n_evaluated.test", lambda c: c["n_evaluated"].update(test=1900)
)
of_record("the loss of an untrained model below that of guessing", "ranges", "below that of an untrained model",
          lambda c: c["loss_trace"][0].__setitem__(1, 0.3))  # fmt: skip
of_record("fewer losses than steps", "recount", "loss_trace", lambda c: c.update(loss_trace=c["loss_trace"][:50]))
of_record("seconds that do not add up", "ranges", "timing.wall_s", lambda c: c["timing"].update(wall_s=0.5))
of_record("negative seconds", "ranges", "timing.start_s", lambda c: c["timing"].update(start_s=-1.0))
of_record("a speed without its seconds", "recount", "timing.examples_per_s",
          lambda c: c["timing"].update(examples_per_s=1e6))  # fmt: skip
of_record("memory in megabytes", "ranges", "peak_memory_bytes", lambda c: c.update(peak_memory_bytes=1024))


@attack("NaN in place of a number", "ranges", "is no finite number")
def not_a_number(folder: Path) -> None:
    without_reading(folder, '"test":{"loss":0.5', '"test":{"loss":NaN')


@attack("an infinity, written as 1e999", "ranges", "is no finite number")
def infinity(folder: Path) -> None:
    without_reading(folder, '"test":{"loss":0.5', '"test":{"loss":1e999')


@attack("an integer of a thousand digits", "ranges", "more than 64 bits")
def huge_integer(folder: Path) -> None:
    without_reading(folder, '"seed":0', f'"seed":{"9" * 1000}')


# Races


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


# Budget and config


of_record("parameters under-reported", "recount", "certificate.parameters",
          lambda c: c["certificate"].update(parameters=c["certificate"]["parameters"] - 5000))  # fmt: skip
of_record("parameters of a mixer in a file under-reported, its ratio not", "recount", "certificate.ratio",
          lambda c: c["certificate"].update(parameters=c["certificate"]["parameters"] - 500), MINE)  # fmt: skip
of_record("a width changed after the certificate", "recount", "certificate",
          lambda c: c["config"]["mixer_options"].update(d_v=8))  # fmt: skip
of_record("FLOPs under-reported", "recount", "certificate.flops", lambda c: c["certificate"].update(flops=1))
of_record("a run that exceeds the budget presented as matched", "recount", "certificate",
          lambda c: [c[part]["mixer_options"].update(d_v=512) for part in ("config", "certificate")])  # fmt: skip
of_record("an unmatched mixer in a file presented as matched", "recount", "certificate.matched",
          lambda c: c["certificate"].update(
              parameters=2 * c["certificate"]["reference_parameters"], ratio=2.0), MINE)  # fmt: skip
of_record("the mixer on top differs from the config's", "recount", "mixer: 'softmax' is recorded",
          lambda c: c.update(mixer="softmax"))  # fmt: skip
of_record("steps other than the recipe's", "recount", "deviates from the recipe", lambda c: (
    c["config"]["train"].update(evals=10)))  # fmt: skip
of_record("another version of the task", "recount", "versions.task", lambda c: c["versions"].update(task=9))
of_record("another protocol of the data", "recount", "data.protocol", lambda c: c["data"].update(protocol="mine/1"))
of_record("another data fingerprint", "recount", "data.fingerprint", lambda c: c["data"].update(fingerprint="0" * 64))
of_record("another number of training examples", "recount", "data.splits",
          lambda c: c["data"]["splits"].update(train=60000))  # fmt: skip
of_record(
    "another list of classes", "recount", "data.details", lambda c: c["data"]["details"].update(class_list="easy")
)
of_record("changed code of the suite", "recount", "code.git_dirty", lambda c: c["code"].update(git_dirty=True))
of_record("a date in the future", "ranges", "created", lambda c: c.update(created="2999-01-01T00:00:00+00:00"))


# Sources


of_record("a mixer in a file presented as built-in", "ranges", "is unknown to this version", lambda c: (
    c["config"].update(mixer_origin="built-in"), c["code"].update(mixer_origin="built-in")), MINE)  # fmt: skip
of_record("a mixer in a file under the name of a built-in one", "recount", "config.mixer_origin", lambda c: (
    c.update(mixer="fem"), c["config"].update(mixer="fem"), c["certificate"].update(mixer="fem")), MINE)  # fmt: skip


@attack("a source that differs from its hash", "recount", "has the hash")
def other_source(folder: Path) -> None:
    [path] = (folder / entry.SOURCES).rglob("*.py")
    path.write_text(SOURCE + "# changed\n")


@attack("a source that differs from the records', listed with its own hash", "recount", "has the hash")
def relisted_source(folder: Path) -> None:
    other_source(folder)
    relist(folder)


@attack("a source left out", "recount", "is not listed")
def no_source(folder: Path) -> None:
    [path] = (folder / entry.SOURCES).rglob("*.py")
    path.unlink()
    relist(folder)


@attack("a further source, which no record needs", "recount", "no record needs it")
def further_source(folder: Path) -> None:
    write_source(folder, "import os\n")
    relist(folder)


# Form


of_record("a key too many in a record", "ranges", "stars", lambda c: c.update(stars=5))
of_record("control sequences in a name", "ranges", "id", lambda c: c.update(id="\x1b[2Jfem"))
of_record("HTML in a name", "ranges", "id: ", lambda c: c.update(id="<b>fem</b>"))
of_record("Markdown in a mixer's name", "ranges", "mixer: ", lambda c: (
    c.update(mixer="[x](y).py:Z"),
    c["config"].update(mixer="[x](y).py:Z", mixer_origin="[x](y).py@" + "0" * 12),
    c["code"].update(mixer_origin="[x](y).py@" + "0" * 12),
    c["certificate"].update(mixer="[x](y).py:Z")), MINE)  # fmt: skip
of_record("text that is shown backwards", "ranges", "has control characters",
          lambda c: c["hardware"].update(processor="\u202eCPU"))  # fmt: skip


@attack("a key twice in a record", "ranges", "a key is repeated")
def repeated_key(folder: Path) -> None:
    without_reading(folder, '"seed":0', '"seed":1,"seed":0')


@attack("a key twice in the document", "ranges", "a key is repeated")
def repeated_key_in_document(folder: Path) -> None:
    path = folder / entry.NAME
    path.write_text(path.read_text().replace('"author"', '"author": "eve", "author"', 1))


@attack("a key too many in the document", "ranges", "badge")
def further_key(folder: Path) -> None:
    edit_document(folder, lambda content: content.update(badge="reproduced"))


@attack("a badge in the entry", "ranges", "no such file belongs to an entry")
def own_badge(folder: Path) -> None:
    (folder / badges.NAME).write_text("{}")


@attack("a badge of a record that was edited since", "recount", "which is not here")
def stale_badge(folder: Path) -> None:
    digest = records(folder)[path_of(folder).relative_to(folder).as_posix()].hash
    checked = badges.Checked(badge="replayed", day="2026-01-01", machine="m", records=(digest,))
    badges.add(folder.parents[1], [checked])
    forge(folder, set_metric("test", 0.9))


@attack("10 MB of notes", "ranges", "are allowed")
def long_notes(folder: Path) -> None:
    (folder / entry.NOTES).write_text("x" * 10_000_000)
    relist(folder)


@attack("a record of more than 64 KB", "ranges", "are allowed")
def long_record(folder: Path) -> None:
    path_of(folder).write_text(path_of(folder).read_text() + " " * 70_000)


@attack("a path that climbs out of the folder", "ranges", "records")
def climbing(folder: Path) -> None:
    edit_document(folder, lambda content: content["records"].update({"records/../../eve/x.json": "0" * 64}))


@attack("a link to a file elsewhere", "ranges", "it is a link")
def link(folder: Path) -> None:
    target = folder.parents[1] / "elsewhere.json"
    path_of(folder).rename(target)
    path_of(folder).symlink_to(target)


@attack("a link to a folder elsewhere", "ranges", "it is a link")
def folder_link(folder: Path) -> None:
    (folder / entry.RECORDS).rename(folder.parents[1] / "elsewhere")
    (folder / entry.RECORDS).symlink_to(folder.parents[1] / "elsewhere")


@attack("a pipe that never ends", "ranges", "it is no plain file")
def pipe(folder: Path) -> None:
    os.mkfifo(path_of(folder).with_name("pipe.json"))


@attack("a program next to the records", "ranges", "no such file belongs to an entry")
def program(folder: Path) -> None:
    (folder / "setup.py").write_text("raise SystemExit\n")


@attack("another author's name in the document", "recount", "author")
def other_author(folder: Path) -> None:
    edit_document(folder, lambda content: content.update(author="eve"))


@attack("a record that nests a million brackets", "ranges", "JSON")
def nested(folder: Path) -> None:
    path_of(folder).write_text("[" * 60_000)


# What nothing here can find: the entry agrees with itself


of_record("a metric edited to another possible value", "reproduced", "", set_metric("test", 0.9))
of_record("validation, its selection and the test edited alike", "reproduced", "", lambda c: (
    c["metrics"]["valid"].update(top1=0.9), c["metrics"]["valid_last"].update(top1=0.9),
    c["metrics"]["test"].update(top1=0.9), c["selection"].update(value=0.9)))  # fmt: skip
of_record("a timing column from another machine", "reproduced", "", lambda c: c["timing"].update(
    step_s=0.5, wall_s=0.6, steps_per_s=2 * c["timing"]["steps_per_s"],
    examples_per_s=2 * c["timing"]["examples_per_s"]))  # fmt: skip
of_record("another processor claimed", "reproduced", "", lambda c: c["hardware"].update(processor="a slower one"))
of_record("less peak memory claimed", "reproduced", "", lambda c: c.update(peak_memory_bytes=2**29))
of_record("a clean commit claimed for changed code", "reproduced", "", lambda c: c["code"].update(
    git_sha="a" * 40, git_dirty=False))  # fmt: skip
of_record("the last losses edited", "reproduced", "", lambda c: c["loss_trace"][-1].__setitem__(1, 0.01))


@attack("parameters of a mixer in a file under-reported, with all that follows", "replay", "certificate.parameters")
def under_reported(folder: Path) -> None:
    for name, made in records(folder).items():
        if made.mixer == MINE:
            fewer = made.certificate.parameters - 500
            counted = {"parameters": fewer, "ratio": fewer / made.certificate.reference_parameters}
            forge(folder, partial(_with_certificate, counted), folder / name, list_again=False)
    relist(folder)


of_record("FLOPs of a mixer in a file presented as verified", "replay", "certificate.flops_verified",
          lambda c: c["certificate"].update(flops_verified=True), MINE)  # fmt: skip


def _with_certificate(counted: Content, content: Content) -> None:
    content["certificate"].update(counted)
