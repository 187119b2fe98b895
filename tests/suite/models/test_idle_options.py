"""Options that change nothing are refused, and only those: their effect is tried out on tiny runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tasks
from suite.config.options import literals
from suite.errors import UserError
from suite.models.effects import idle_options
from suite.models.resolve import resolve, resolve_run
from suite.training.evaluate import eval_mode
from suite.training.observer import Quiet
from suite.training.signals import Stop
from suite.training.trainer import Trainer
from tests.suite.tiny import tiny_sets

SOTU, FASHION, POWER = (("--task", task) for task in ("sotu", "fashion-mnist", "household-power"))
REFUSED = {
    "a hybrid of softmax": ((*SOTU, "--mixer", "softmax", "--hybrid", "even"), "--hybrid", "softmax already"),
    "heads without mixing": ((*SOTU, "--mixer", "no-mixing", "--set", "mixer.heads=2"), "mixer.heads=2", "no heads"),
    "a temperature of nothing": (
        (*SOTU, "--mixer", "fem", "--set", "lse=false", "--set", "temperature=false"),
        "mixer.temperature=False",
        "nothing to mix",
    ),
    "embeddings of images": ((*FASHION, "--mixer", "fem", "--set", "embedding_std=0.1"), "embedding_std=0.1", "tokens"),
    "a forecaster's head of a classifier": (
        (*FASHION, "--mixer", "fem", "--set", "head_scale=0"),
        "head_scale",
        "fore",
    ),
    "a forecaster's head of a decoder": ((*SOTU, "--mixer", "fem", "--set", "head_scale=0"), "head_scale", "fore"),
    "embeddings of a series": ((*POWER, "--mixer", "fem", "--set", "embedding_std=0.1"), "embedding_std", "tokens"),
    "a depth rate of one layer": (
        (*FASHION, "--mixer", "fem", "--set", "depth=1", "--set", "drop_path=0.1"),
        "drop_path=0.1",
        "only one",
    ),
    "a rate of a closed form": ((*POWER, "--mixer", "baseline/ridge", "--set", "lr=1"), "train.lr=1.0", "closed form"),
    "heads of a baseline": (
        (*POWER, "--mixer", "baseline/dlinear", "--set", "mixer.heads=2"),
        "mixer.heads=2",
        "no heads",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("command", ["show", "run"])
def test_an_option_that_changes_nothing_is_one_line(suite, command, name):
    arguments, given, reason = REFUSED[name]
    ended = suite(command, *arguments, "--scale", "board")
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
    assert given in ended.err
    assert "changes nothing for task" in ended.err
    assert reason in ended.err
    assert "leave it out" in ended.err


def test_an_option_of_a_recipe_file_is_refused_too(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('hybrid = "even"\n')
    with pytest.raises(UserError, match="--hybrid changes nothing"):
        resolve(task="sotu", mixer="softmax", recipe=path)
    path.write_text("[model]\nhead_scale = 0.5\n")
    with pytest.raises(UserError, match="head_scale"):
        resolve(task="sotu", mixer="fem", recipe=path)
    assert resolve(task="household-power", mixer="fem", recipe=path).model.head_scale == 0.5


def test_a_hybrid_of_softmax_with_other_options_has_an_effect():
    assert resolve(task="sotu", mixer="softmax", hybrid="even", sets=["mixer.heads=2"]).hybrid == (2, 4)


@pytest.mark.parametrize("command", ["run --mixer fem --task", "data info", "data prepare", "check"])
def test_a_folder_that_a_task_does_not_read_is_refused(suite, tmp_path, command):
    for task in ("sotu", "mqar"):
        ended = suite(*command.split(), task, "--data-dir", str(tmp_path))
        assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, "")
        assert "--data-dir" in ended.err
        assert "changes nothing" in ended.err


# --- by training ---

Outcome = tuple[object, ...]
#: (task, mixer, given options): the base of each comparison.
BASES = {
    "sotu, softmax": ("sotu", "softmax", ()),
    "fashion-mnist, fem": ("fashion-mnist", "fem", ()),
    "household-power, fem without lse": ("household-power", "fem", ("lse=false",)),
}
#: Options whose effect three steps do not show: what they change has tests of its own.
UNSEEN = {
    **dict.fromkeys(("train.eval_batch_size", "train.accumulate"), "memory and speed only"),
    **dict.fromkeys(("train.evals", "train.ema", "train.precision"), "tests in tests/suite/training"),
    "mixer.causal": "decided by the task",
    "model.width_factor": "refused without --unmatched; tests in tests/suite/models",
}


def outcome(task: str, mixer: str, sets: list[str], folder: Path) -> Outcome:
    """Everything that an option could change in a run of three steps."""
    resolved = resolve_run(task=task, mixer=mixer, scale="board", sets=sets, unmatched=True)
    subject, candidate = tasks.get(task)(resolved.config.data), resolved.candidate
    plan = candidate.plan(resolved.config, subject.spec)
    certificate = candidate.certify(resolved.config, subject.spec, plan)
    subject.load()
    torch.manual_seed(0)
    model = candidate.build(resolved.config, subject, plan)
    parts: dict[str, Any] = {"device": torch.device("cpu"), "run_dir": folder, "observer": Quiet(), "stop": Stop()}
    trainer = Trainer(model, subject, resolved.config, **parts)
    losses = trainer.first_losses(3)
    batch = next(subject.eval_batches("valid", 8))
    with torch.no_grad(), eval_mode(model):
        figures = subject.measure(model(batch.inputs).float(), batch)
    counts = [certificate.parameters, certificate.flops, certificate.state_bytes]
    return losses, figures, counts, subject.spec, [subject.n_examples(split) for split in ("valid", "test")]


def other_values(field, now: object) -> list[str]:
    """Values to try instead, some of which may be invalid."""
    if isinstance(now, bool):
        return [str(not now).lower()]
    if found := [str(value) for value in literals(field.annotation) if value != now]:
        return found
    if isinstance(now, int):
        return [str(value) for value in (now * 2, now + 1, max(now // 2, 1), 4) if value != now]
    return [f"{value:g}" for value in (now * 0.5 + 0.2, 0.3)] if isinstance(now, float) else []


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_exactly_the_options_without_an_effect_are_refused(tmp_path, base):
    task, mixer, given = BASES[base]
    sets = [*tiny_sets(task, *given), "train.steps=3", "train.evals=1"]
    resolved = resolve_run(task=task, mixer=mixer, scale="board", sets=sets, unmatched=True)
    config = resolved.config
    idle = idle_options(config, resolved.candidate, tasks.get(task)(config.data))
    reference, wrong = outcome(task, mixer, sets, tmp_path), []
    sections = {"data": config.data, "model": config.model, "mixer": config.mixer_options, "train": config.train}
    for section, options in sections.items():
        for name, field in type(options).model_fields.items():
            if f"{section}.{name}" in UNSEEN:
                continue
            tried = other_values(field, getattr(options, name))
            seen = list[str]()
            while tried and not {"other", "refused"} & set(seen):
                changed = [*sets, f"{section}.{name}={tried.pop(0)}"]
                seen.append(tried_out(reference, task, mixer, changed, tmp_path))
            refused = f"{section}.{name}" in idle
            if refused and set(seen) - {"refused"}:
                wrong.append(f"{section}.{name} is not refused")
            if not refused and "same" in seen and "other" not in seen:
                wrong.append(f"{section}.{name} changes nothing")
    assert wrong == []


def tried_out(reference: Outcome, task: str, mixer: str, sets: list[str], folder: Path) -> str:
    """What comes of a value: `other` or the `same` results, `refused` because it changes nothing, or `invalid`."""
    try:
        return "same" if outcome(task, mixer, sets, folder) == reference else "other"
    except Exception as error:  # whatever an option's values are refused with
        return "refused" if "changes nothing" in str(error) else "invalid"
