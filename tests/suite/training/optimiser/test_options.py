"""Every training option has an effect."""

from __future__ import annotations

from typing import Any

import pytest

import tasks
from suite.config.run_config import TrainConfig
from suite.training.evaluate import evaluate
from suite.training.run import start
from suite.training.signals import Stop
from tests.suite.tiny import tiny_config
from tests.suite.training.test_start_from_a_worker import Recorder

OTHER: dict[str, Any] = {
    "steps": 5,
    "batch_size": 4,
    "lr": 3e-4,
    "weight_decay": 0.5,
    "beta1": 0.5,
    "beta2": 0.5,
    "warmup": 0.5,
    "min_lr": 0.5,
    "clip": 0.01,
    "ema": 0.9,
    "evals": 2,
    "eval_batch_size": 250,
    "accumulate": 2,
    "precision": "bf16",
}


def effects(monkeypatch, **options: object) -> dict[str, object]:
    """Everything that can be seen of a short run: what the model was given, and what was reported."""
    seen: dict[str, list[object]] = {"sizes": [], "steps": [], "metrics": [], "parts": []}

    class Watching(Recorder):
        def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
            seen["steps"].append((step, loss, lr, grad_norm))

        def validated(self, step: int, metrics: dict[str, float]) -> None:
            seen["metrics"].append((step, metrics))

    def watched(model, task, split, **more):
        seen["sizes"].append(more["batch_size"])
        return evaluate(model, task, split, **more)

    short = ("warmup=0.2", "length=16", "depth=1")
    config = tiny_config("sotu", "fem", *short, *(f"train.{k}={v}" for k, v in options.items()))
    loss = tasks.get("sotu").loss
    with monkeypatch.context() as patch:
        patch.setattr("suite.training.trainer.evaluate", watched)
        patch.setattr(
            tasks.get("sotu"),
            "loss",
            lambda self, outputs, batch: seen["parts"].append(batch.size) or loss(self, outputs, batch),  # type: ignore[func-returns-value]
        )
        stop = Stop()
        assert start(config, data_dir=None, device="cpu", observer=Watching(stop), stop=stop).exit_code == 0
    return dict(seen)


@pytest.mark.slow
def test_every_training_option_has_an_effect(monkeypatch):
    assert OTHER.keys() == TrainConfig.model_fields.keys()
    usual = effects(monkeypatch)
    assert effects(monkeypatch) == usual
    without = [name for name, value in OTHER.items() if effects(monkeypatch, **{name: value}) == usual]
    assert without == []
