"""What nothing in the entry shows, since it agrees with itself: only training again does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.suite.submissions.attacks.attack import attack, of_record, set_metric
from tests.suite.submissions.made import MINE, Content, forge, records, relist

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
of_record("the test figure spread otherwise over the test units", "reproduced", "", lambda c: c.update(
    test_units={"word": "images", "sums": [1000 * c["metrics"]["test"]["top1"]] * 2, "counts": [1000.0] * 2},
))  # fmt: skip
of_record("the last losses edited", "reproduced", "", lambda c: c["loss_trace"][-1].__setitem__(1, 0.01))


@attack("parameters of a mixer in a file under-reported, with all that follows", "replay", "certificate.parameters")
def under_reported(folder: Path) -> None:
    for name, made in records(folder).items():
        if made.mixer == MINE:
            fewer = made.certificate.parameters - 500
            counted = {"parameters": fewer, "ratio": fewer / made.certificate.reference_parameters}
            forge(folder, partial(_with_certificate, counted), folder / name, list_again=False)
    relist(folder)


of_record("a contract that was not checked claimed to hold", "reproduced", "",
          lambda c: c.update(contract={"checked": True, "version": 1}), MINE)  # fmt: skip
of_record("FLOPs of a mixer in a file presented as verified", "replay", "certificate.flops_verified",
          lambda c: c["certificate"].update(flops_verified=True), MINE)  # fmt: skip


def _with_certificate(counted: Content, content: Content) -> None:
    content["certificate"].update(counted)
