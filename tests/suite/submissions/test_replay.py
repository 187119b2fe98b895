"""Replays: the same config agrees whatever rounds its sums, other runs are found; nothing of an author runs unasked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tasks
from suite.models.candidate import parse
from suite.models.resolve import resolve_run
from suite.records import record
from suite.records.recorded import RecordedConfig
from suite.records.schema import Record
from suite.submissions import replay as replays
from suite.submissions.drawn import replay_some
from suite.submissions.replay import PLANTED, STEPS, Replayed, first_losses, obstacle, replay
from suite.submissions.verify import Verified
from suite.training.run import start
from tests.suite.submissions.made import SOURCE
from tests.suite.tiny import tiny_config, tiny_sets

pytestmark = pytest.mark.slow  # each trains

SHORT = (f"steps={STEPS}", "evals=1", "lr=3e-3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Callable[[str, int], Record]:
    """Real runs of the compared number of steps, each trained once."""
    known: dict[tuple[str, int], Record] = {}

    def get(mixer: str, seed: int = 0) -> Record:
        if (mixer, seed) not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SUITE_HOME", str(tmp_path_factory.mktemp("runs")))
                patch.setenv("SUITE_TRACKING", "off")
                config = tiny_config("sotu", mixer, *SHORT, seed=seed)
                path = start(config, data_dir=None, device="cpu").path
                assert path is not None
                known[mixer, seed] = record.read(path)
        return known[mixer, seed]

    return get


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mixers") / "mine.py"
    path.write_text(SOURCE)
    return path


def changed(made: Record, **train: object) -> Record:
    """The record with other options of training, everything that follows computed again."""
    content = made.config.recorded()
    config = RecordedConfig.model_validate({**content, "train": {**content["train"], **train}})
    return made.model_copy(update={"config": config, "identity": config.identity, "group": config.group}).sealed()


def test_a_real_run_replays_with_any_number_of_threads(trained):
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = replay(trained("softmax"), {})
        assert found.fault == ""
        assert found.steps >= STEPS / 2
        assert found.deviation <= found.tolerance / 2


@pytest.mark.parametrize("mixer", ["softmax", "fem"])
def test_a_learning_rate_that_is_one_percent_off_is_found(trained, mixer):
    made = trained(mixer)
    lr = made.config.train.lr
    for factor in (PLANTED, 1 / PLANTED):
        found = replay(changed(made, lr=lr * factor), {})
        assert "a loss of its first" in found.fault, found


def test_losses_are_compared_as_far_as_rounding_is_small_against_the_planted_change(monkeypatch):
    trained = {
        "losses": [4.0, 3.0, 2.0, 1.0],
        "threads": [4.0, 3.0, 2.0, 1.01],
        "kernels": [4.0, 3.0001, 2.0, 1.0],
        "planted": [4.0, 3.003, 2.02, 1.02],
    }
    again = iter(trained.values())
    monkeypatch.setattr(replays, "first_losses", lambda config, candidate, task, steps: next(again))
    losses, allowed = replays.calibrated(tiny_config("sotu"), parse("softmax"), 4)
    assert losses == trained["losses"]
    assert allowed == pytest.approx([replays.FLOOR, 0.0005, 0.005])


def test_the_run_of_another_seed_or_mixer_or_invented_losses_are_found(trained):
    made = trained("softmax")
    invented = [(step, 5.5 * step**-0.2) for step, _ in made.loss_trace]
    for trace in (trained("softmax", 1).loss_trace, trained("qk-norm").loss_trace, invented):
        found = replay(made.model_copy(update={"loss_trace": trace}), {})
        assert "a loss of its first" in found.fault


def test_a_run_of_a_file_is_replayed_only_with_trust_and_then_counted_again(trained, file, capsys):
    made = trained(f"{file}:Mine")
    sources = {made.config.mixer_origin: file}
    assert "--trust-source" in obstacle(made, sources, trusted=False)
    assert obstacle(made, {}, trusted=True)
    assert obstacle(made, sources, trusted=True) == ""
    assert replay(made, sources).fault == ""
    assert made.certificate.flops_verified is False
    for claim in ({"parameters": made.certificate.parameters - 500}, {"flops_verified": True}):
        claimed = made.model_copy(update={"certificate": made.certificate.model_copy(update=claim)})
        assert f"certificate.{next(iter(claim))}" in replay(claimed, sources).fault


def test_a_source_exchanged_after_the_run_is_found(trained, file, tmp_path):
    made = trained(f"{file}:Mine")
    other = tmp_path / "mine.py"
    other.write_text(SOURCE.replace("QKNorm", "IdentityQuery"))
    assert replay(made, {made.config.mixer_origin: other}).fault
    other.write_text("raise RuntimeError('boom')\n")
    second = tmp_path / "again" / "mine.py"
    second.parent.mkdir()
    second.write_text("raise RuntimeError('boom')\n")
    assert "cannot be trained again" in replay(made, {made.config.mixer_origin: second}).fault


def test_the_file_of_an_author_is_announced_before_it_runs_and_never_runs_unasked(trained, file, tmp_path, capsys):
    made = trained(f"{file}:Mine")
    bomb = tmp_path / "mine.py"
    bomb.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).write_text('x')\n{SOURCE}")
    found = Verified(records={"x.json": made}, sources={made.config.mixer_origin: bomb})
    assert replay_some(found, 1, trusted=False) == {}
    assert not (tmp_path / "marker").exists()
    replay_some(found, 1, trusted=True)
    assert (tmp_path / "marker").exists()
    assert f"executing the mixer's file {bomb}" in capsys.readouterr().err


def test_what_cannot_be_replayed_is_named(trained):
    made = trained("softmax")
    gpu = made.model_copy(update={"hardware": made.hardware.model_copy(update={"device": "H100"}), "precision": "bf16"})
    assert "H100 in bf16" in obstacle(gpu, {}, trusted=True)
    assert "no losses" in obstacle(made.model_copy(update={"loss_trace": []}), {}, trusted=True)
    old = made.model_copy(update={"versions": made.versions.model_copy(update={"mixer": 77})})
    assert "version 77" in obstacle(old, {}, trusted=True)


def test_records_are_drawn_at_random_and_no_more_than_there_are(trained, monkeypatch):
    records = {f"{seed}.json": trained("softmax", seed) for seed in (0, 1)}
    monkeypatch.setattr(replays, "first_losses", lambda config, candidate, task, steps: [0.0] * steps)
    found = Verified(records=records)
    drawn = replay_some(found, 5, trusted=False)
    assert drawn.keys() == records.keys()
    assert {fault.check for fault in found.faults} == {"replay"}
    seen = {next(iter(replay_some(Verified(records=records), 1, trusted=False))) for _ in range(30)}
    assert seen == records.keys()


def test_for_a_record_whose_losses_show_nothing_another_is_drawn(trained, monkeypatch, capsys):
    """An honest run may be such that rounding hides another learning rate at every step."""
    hidden = Replayed(0.0, replays.FLOOR, 9, 0.1, incomparable="rounding hides all")
    monkeypatch.setattr(
        "suite.submissions.drawn.replay",
        lambda made, sources: hidden if made.seed in (0, 2) else Replayed(0.0, 1e-3, 9, 0.1),
    )
    found = Verified(
        records={f"{seed}.json": trained("softmax").model_copy(update={"seed": seed}) for seed in range(4)}
    )
    assert replay_some(found, 4, trusted=False).keys() == {"1.json", "3.json"}
    said = capsys.readouterr().err
    assert "0.json cannot be replayed: rounding hides all" in said
    assert "2.json cannot be replayed: rounding hides all" in said
    assert found.faults == []
    found = Verified(records={name: made for name, made in found.records.items() if made.seed in (0, 2)})
    assert replay_some(found, 1, trusted=False) == {}
    assert capsys.readouterr().err.count("cannot be replayed") == 1


def test_where_rounding_hides_the_planted_rate_a_replay_is_incomparable_and_no_fault(trained, monkeypatch):
    made = trained("softmax")
    honest = replays.first_losses(*replays.config_of(made, {}), loaded(made), STEPS)
    for losses, fault in ((honest, ""), ([2 * loss for loss in honest], "a loss of its first")):
        monkeypatch.setattr(replays, "calibrated", lambda *given, losses=losses: (losses, [replays.FLOOR]))
        found = replay(made, {})
        assert fault in found.fault
        assert bool(found.fault) == bool(fault)
        assert ("rounding hides" in found.incomparable) == (not fault)


def loaded(made: Record) -> tasks.base.Task:
    task = tasks.get(made.task)(replays.config_of(made, {})[0].data)
    task.load()
    return task


def test_first_losses_are_those_of_a_whole_run(trained):
    made = trained("fem")
    resolved = resolve_run(task="sotu", mixer="fem", scale="board", sets=tiny_sets("sotu", *SHORT))
    task = tasks.get("sotu")(resolved.config.data)
    task.load()
    losses = first_losses(resolved.config, resolved.candidate, task, 8)
    assert json.dumps(losses) == json.dumps([loss for _, loss in made.loss_trace[:8]])
