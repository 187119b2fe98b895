"""A runs folder with runs and files, and stand-ins for what takes long or needs a server, which record what reaches
them.

What the stand-ins replace has tests of its own; here it counts that an option gets there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from suite.records import record
from suite.training import processors
from suite.training.deterministic import mode
from suite.training.outcome import Outcome
from suite.training.run import start
from tasks.storage.verified import SETTING
from tests.suite.tiny import made_record, tiny_config
from tests.tasks.series.series_files import power, write_csv

Calls = list[Any]


def build(root: Path) -> dict[str, str]:
    """Writes the runs below `root/runs`, trains four tiny ones, and returns the names that command lines use."""
    home = root / "runs"
    os.environ["SUITE_HOME"] = str(home)
    for name, made in {
        "made-1": made_record("softmax", name="made-1"),
        "made-2": made_record("fem", name="made-2"),
        "made-4": made_record("softmax", 0.6, seed=1, name="made-4"),
        "made-5": made_record("fem", 0.7, seed=1, name="made-5"),
        "made-3": made_record("softmax", name="made-3", task="household-power"),
    }.items():
        (home / name).mkdir(parents=True)
        record.write(home / name, made)
    names = {"folder": str(root), "one_record": str(home / "made-1")}
    for number in (1, 2):
        series = write_csv(root / f"{number}.csv", power(900 + number), tuple("abcdefg"), "2021-01-01", "h")
        names[f"csv_{number}"] = str(series)
        recipe = root / f"{number}.toml"
        recipe.write_text(f"[model]\ndepth = {number + 1}\n")
        names[f"recipe_{number}"] = str(recipe)
        short = ("track=fixed-96", "horizon=8", "valid_limit=16", "test_limit=16", "steps=1", "evals=1")
        config = tiny_config("csv", "softmax", *short, seed=number)
        names[f"series_{number}"] = start(config, data_dir=Path(names["csv_1"]), device="cpu").record.id
        config = tiny_config("sotu", "softmax", "steps=1", "evals=1", seed=number)
        names[f"text_{number}"] = start(config, data_dir=None, device="cpu").record.id
    return names


@contextmanager
def watched(home: Path) -> Iterator[Calls]:
    """Within the block, commands work on `home`, and what reaches the stand-ins is recorded."""
    calls: Calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUITE_HOME", str(home))
        patch.setenv("SUITE_TRACKING", "off")
        patch.setattr("tempfile.tempdir", str(home))  # the doctor moves records from there
        patch.setattr("suite.tracking.backlog.send_in_background", lambda *_: None)
        _watch_runs(patch, calls, home)
        _watch_sweeps(patch, calls)
        _watch_tracking(patch, calls)
        _watch_bench(patch, calls)
        _watch_checks(patch, calls)
        _watch_planning(patch)
        _watch_harness(patch, calls)
        _watch_submissions(patch, calls)
        yield calls


def recording(calls: Calls, name: str, result: Any) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        for name in ("candidate", "commanded"):
            options.pop(name, None)
        calls.append((name, [plain(a) for a in arguments], {key: plain(value) for key, value in options.items()}))
        return result() if callable(result) else result

    return call


def plain(value: Any) -> Any:
    """A value as text that is the same in every process."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else repr(value)


def _watch_runs(patch: pytest.MonkeyPatch, calls: Calls, home: Path) -> None:
    def ended() -> Outcome:
        calls.append((os.environ.get(SETTING), torch.get_num_threads(), processors._workers, mode.active()))
        return Outcome(record.read(home / "made-1" / record.NAME), home / "made-1" / record.NAME, 0)

    for name in ("start", "resume", "resume_newest"):
        patch.setattr(f"suite.training.run.{name}", recording(calls, name, ended))
    patch.setattr("suite.training.parallel.launch.launch", recording(calls, "launch", 0))


def _watch_sweeps(patch: pytest.MonkeyPatch, calls: Calls) -> None:
    from suite.sweeps.scheduler import Progress

    def carry_out(entrants: Any, executor: Any, **_: Any) -> Progress:
        races = [(each.label, plain(each.base), each.race.rates, each.race.seeds, each.data_dir) for each in entrants]
        calls.append((races, repr(executor)))
        return Progress()

    patch.setattr("suite.sweeps.scheduler.carry_out", carry_out)
    patch.setattr("suite.sweeps.on_ray.cluster.require_ray", lambda: None)
    patch.setattr("suite.sweeps.estimate.seconds_per_run", lambda _: 1.0)


def _watch_tracking(patch: pytest.MonkeyPatch, calls: Calls) -> None:
    from suite.boards.tracked.rebuild import Rebuilt

    patch.setattr("suite.tracking.ui.server.serve", recording(calls, "serve", 0))
    patch.setattr("suite.boards.tracked.rebuild.rebuild", recording(calls, "rebuild", lambda: Rebuilt("store")))
    sent = SimpleNamespace(uri="store", run_id="1")
    patch.setattr("suite.tracking.delivery.upload", recording(calls, "upload", sent))
    patch.setattr("suite.tracking.publishing.close_dead_runs", recording(calls, "close", list))


def _watch_bench(patch: pytest.MonkeyPatch, calls: Calls) -> None:
    from suite.bench import report

    def measure(kind: str, comparisons: Any, rounds: int, against: Any, device: torch.device) -> dict[str, Any]:
        found = [(each.name, each.length) for each in comparisons]
        calls.append((kind, found, rounds, tuple(against), str(device), torch.get_num_threads()))
        return {"bench": kind, "contests": [], "exponents": []}

    def picture(_: Any, path: Path) -> None:
        calls.append(("plot", path.name))

    patch.setattr(report, "measure", measure)
    patch.setattr(report, "plot", picture)
    patch.setattr(report, "show", lambda document, out: out.print("a table"))
    patch.setattr("suite.bench.results_folder.add", lambda _, folder: calls.append(("add", folder.name)))


def _watch_checks(patch: pytest.MonkeyPatch, calls: Calls) -> None:
    for contract in ("backbones.contract.run", "tasks.contract.run"):
        patch.setattr(f"{contract}.run_checks", recording(calls, contract, list))


def _watch_planning(patch: pytest.MonkeyPatch) -> None:
    from suite.planning.check import Check, Row
    from suite.planning.rates import Rates

    row = Row("mqar", "fox", False, 0.012, 0.011, 0.010, 0.009, 0.012, 2e6, 2_000_000)
    patch.setattr("suite.planning.check.check", lambda _: Check((row,), Rates(1e11, 1e10), ()))


def _watch_submissions(patch: pytest.MonkeyPatch, calls: Calls) -> None:
    from suite.records.badges import Reproduction
    from suite.submissions.reproduce import Reproduced
    from suite.submissions.reproducible import Row
    from suite.submissions.retraining import Planned
    from suite.submissions.submit import Submitted
    from suite.submissions.verify import Verified

    written = Submitted(Path("entry"), (), 1, 1)
    patch.setattr("suite.submissions.submit.require_rankable", lambda _: None)  # the checkout may have changes
    patch.setattr("suite.submissions.submit.submit", recording(calls, "submit", written))
    patch.setattr("suite.submissions.verify.verify", recording(calls, "verify", Verified))
    patch.setattr("suite.submissions.drawn.replay_some", recording(calls, "replay", dict))
    row = Row("a row", "softmax", {"a record": made_record()})
    figures = Reproduction(
        task="sotu",
        scale="board",
        mixer="softmax",
        metric="top1",
        seeds=(0, 1, 2),
        recorded=0.5,
        trained=0.5,
        deviation=0.01,
        allowed=0.02,
    )
    patch.setattr("suite.submissions.reproducible.rows", recording(calls, "rows", lambda: [row]))
    patch.setattr("suite.submissions.retraining.plan", recording(calls, "plan", Planned(row, {}, {})))
    patch.setattr("suite.submissions.retraining.seconds", lambda _: 1.0)
    patch.setattr("suite.submissions.reproduce.reproduce", lambda *_: Reproduced(row, (), figures))
    patch.setattr("backbones.contract.run.each_check", recording(calls, "contract", list))


def _watch_harness(patch: pytest.MonkeyPatch, calls: Calls) -> None:
    harness, ours = ModuleType("lm_eval"), ModuleType("suite.language.lm_eval")
    harness.__spec__ = ModuleSpec("lm_eval", None)
    ours.evaluate = recording(calls, "evaluate", lambda: {"piqa": {"acc": 0.5}})  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "lm_eval", harness)
    patch.setitem(sys.modules, "suite.language.lm_eval", ours)
