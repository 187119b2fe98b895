"""The runs that `test_several_ranks` compares, carried out by two ranks of one job, each rank on one thread:

torchrun --standalone --nproc-per-node 2 -m tests.scale.joint_runs RESULTS
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from suite.models.resolve import Resolved, resolve_run
from suite.records import runs_folder
from suite.training.deterministic import mode
from suite.training.observer import Quiet
from suite.training.outcome import Outcome
from suite.training.parallel.environment import HAVE_MET, place
from suite.training.parallel.follower import follow
from suite.training.parallel.join import joined
from suite.training.parallel.ranks import ALONE, Ranks
from suite.training.run import resume, start
from tests.golden.capture import SHAPE, TASKS

#: name: task, mixer, hybrid, further options
CASES: dict[str, tuple[str, str, str | None, tuple[str, ...]]] = {
    "language": ("sotu", "fem", None, ()),
    "vision, accumulated": ("fashion-mnist", "softmax", None, ("train.accumulate=2",)),
    "forecasting, batch norm, averaged": ("household-power", "fem", None, ("train.ema=0.9",)),
    "recall, averaged, accumulated": ("mqar", "softmax", None, ("train.ema=0.9", "train.accumulate=2")),
    "constant sequence, hybrid": ("sotu", "random-qk", "2", ()),
}
DROPPED = ("household-power", "softmax", None, ("dropout=0.2", "drop_path=0.3", "train.ema=0.9"))
STRATEGIES = ("ddp", "fsdp2")
#: The strategies of a run's beginning and of its end; None: one process.
CHANGES: dict[str, tuple[str | None, str | None]] = {
    "2-to-1": ("fsdp2", None),
    "1-to-2": (None, "fsdp2"),
    "ddp-to-fsdp": ("ddp", "fsdp2"),
    "fsdp-to-fsdp": ("fsdp2", "fsdp2"),
}
#: A mixer whose gradients differ from pass to pass, on one rank.
NOISY = """
import os
import torch
from backbones.mixers.deconstructed.variants import NoMixing

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        noise = int.from_bytes(os.urandom(2), "big") / 2**16
        return g * (1 + noise * (os.environ["RANK"] == "1"))

class Noisy(NoMixing):
    def forward(self, x, context=None):
        return Backward.apply(super().forward(x, context))
"""


class Norms(Quiet):
    """Keeps the gradients' norms before clipping. AdamW's steps, and so the losses, hardly depend on their scale."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        self.found.append(grad_norm)


class Job:
    """This rank's part of the runs. Rank 0 keeps their results."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def start(self, case: tuple[str, str, str | None, tuple[str, ...]], strategy: str | None) -> dict[str, Any]:
        resolved, norms = _resolved(case), Norms()
        ended = self._run(
            strategy,
            lambda ranks: start(
                resolved.config,
                data_dir=None,
                device="cpu",
                candidate=resolved.candidate,
                observer=norms,
                again=True,
                pictures=False,
                ranks=ranks,
            ),
        )
        return {**ended, "norms": norms.found}

    def changed(self, case: tuple[str, str, str | None, tuple[str, ...]], change: str) -> dict[str, Any]:
        """A whole run, and the same run stopped after its second validation and resumed."""
        first, second = CHANGES[change]
        whole = self.start(case, first)
        if self.ranks.leads:
            _forget_the_end(runs_folder.home() / whole["id"])
        resumed = self._run(second, lambda ranks: resume(whole["id"], data_dir=None, device="cpu", ranks=ranks))
        return {"whole": whole, "resumed": resumed}

    def _run(self, strategy: str | None, lead: Callable[[Ranks], Outcome]) -> dict[str, Any]:
        """A run's record at rank 0, and an empty dictionary elsewhere."""
        if strategy is None:
            made = lead(ALONE) if self.ranks.leads else None
            self.ranks.gather(None)
        else:
            ranks = replace(self.ranks, strategy=strategy, announced=False)  # type: ignore[arg-type]
            made = lead(ranks) if ranks.leads else None
            code = 0 if ranks.leads else follow(ranks, device="cpu", data_dir=None)
            assert ranks.gather(code) == [0, 0]
        return made.record.sealed().model_dump(mode="json", by_alias=True) if made else {"id": ""}


def _resolved(case: tuple[str, str, str | None, tuple[str, ...]]) -> Resolved:
    task, mixer, hybrid, more = case
    sets = [*SHAPE, *TASKS[task], *more]
    return resolve_run(task=task, mixer=mixer, scale="board", hybrid=hybrid, sets=sets, unmatched=True)


def _forget_the_end(folder: Path) -> None:
    """Leaves what a run killed after its second of three validations had left."""
    (folder / "record.json").unlink()
    of_several = sorted(folder.glob("checkpoint-*.dcp"))
    if of_several:
        shutil.rmtree(of_several[-1])
    for name in ("checkpoint.pt", "checkpoint.best.pt"):
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with contextlib.redirect_stderr(sys.stdout):
        yield


def carry_out(job: Job, noisy: Path) -> dict[str, Any]:
    """All results by name; only rank 0's are whole."""
    results: dict[str, Any] = {
        name: {str(kind): job.start(case, kind) for kind in (None, *STRATEGIES)} for name, case in CASES.items()
    }
    results |= {f"resumed {name}": job.changed(CASES["forecasting, batch norm, averaged"], name) for name in CHANGES}
    results["dropped"] = {"None": job.start(DROPPED, None), "first": job.start(DROPPED, "ddp")}
    results["dropped"] |= {kind: job.start(DROPPED, kind) for kind in STRATEGIES}
    results["dropped, resumed"] = job.changed(DROPPED, "fsdp-to-fsdp")
    with mode.using(True):
        results["deterministic"] = {kind: job.start(DROPPED, kind) for kind in STRATEGIES}
        results["noisy"] = {kind: job.start(("sotu", f"{noisy}:Noisy", None, ()), kind) for kind in STRATEGIES}
    return results


def main(results: Path) -> None:
    torch.set_num_threads(1)
    noisy = results.with_name("noisy.py")
    with joined(place(), "ddp") as ranks, _quietly():
        assert HAVE_MET.is_set()  # from now on every rank prints its own errors
        if ranks.leads:
            noisy.write_text(NOISY)
        ranks.gather(None)
        found = carry_out(Job(ranks), noisy)
    if ranks.leads:
        results.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
