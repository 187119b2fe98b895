"""Figures that were edited."""

from __future__ import annotations

from pathlib import Path

from tests.suite.submissions.attacks.attack import attack, of_record, set_metric, without_reading


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
of_record("figures of test units that do not give the test figure", "recount", "follows from test_units",
          lambda c: c.update(test_units={"word": "images", "sums": [900.0, 1.0], "counts": [1e3, 1e3]}))  # fmt: skip
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
