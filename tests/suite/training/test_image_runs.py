"""Image tasks over files, from the recipe to the record."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from suite.models.resolve import resolve
from suite.training.run import resume, start
from tests.suite.tiny import certify
from tests.suite.training.run_helpers import at_step
from tests.suite.training.test_resume import equal_runs
from tests.tasks.images.image_files import write_cifar10, write_folder, write_imagenet100_parquet

IMAGENET_TRAIN = {
    "imagenet1k": 1_281_167 - 12_812,
    "imagenet100": 126_689 - 6_335,
}  # about; without the validation images
DEIT_SMALL = Path(__file__).parents[3] / "examples" / "deit-small.toml"
TINY = ("dim=32", "model.heads=2", "depth=2", "ffn_width=88", "batch_size=8", "steps=6", "evals=2")


@pytest.mark.parametrize("task", IMAGENET_TRAIN)
def test_the_paper_scale_of_imagenet_has_the_size_and_training_of_deit_tiny(task):
    config = resolve(task=task, mixer="softmax", scale="paper")
    train, data, model = config.train, config.data.model_dump(), config.model
    assert (model.dim, model.depth, model.heads, model.drop_path) == (192, 12, 3, 0.1)
    # each of 12 layers: 4 D² of attention and 8 D² of a feed-forward layer of width 4 D
    assert certify(config).parameters == pytest.approx(12 * 12 * 192**2, rel=0.01)
    assert train.steps * train.batch_size / IMAGENET_TRAIN[task] == pytest.approx(300, rel=1e-3)
    assert (train.batch_size, train.lr, train.weight_decay, train.ema) == (1024, 5e-4 * 1024 / 512, 0.05, 0)
    assert train.warmup == pytest.approx(5 / 300, rel=0.01)
    chosen = (
        "augmentation",
        "magnitude",
        "erase",
        "label_smoothing",
        "mixup",
        "cutmix",
        "image_size",
        "patch",
        "valid_limit",
        "test_limit",
    )
    assert tuple(data[name] for name in chosen) == ("randaugment", 9, 0.25, 0.1, 0.8, 1.0, 224, 16, 0, 0)


def test_deit_smalls_recipe_differs_from_deit_tinys_in_its_widths_alone():
    tiny, small = resolve(task="imagenet1k", mixer="fem", scale="paper"), resolve(mixer="fem", recipe=DEIT_SMALL)
    assert (small.model.dim, small.model.depth, small.model.heads) == (384, 12, 6)
    assert (small.task, small.scale, small.train, small.data) == (tiny.task, tiny.scale, tiny.train, tiny.data)
    assert certify(small).matched


@pytest.mark.slow
@pytest.mark.parametrize("task", ["imagenet100", "cifar10", "folder"])
def test_a_run_over_files_is_recorded_and_resumes_bit_for_bit_with_ema(tmp_path, monkeypatch, task):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.pictures.attention_maps", lambda *_: {})
    match task:
        case "imagenet100":
            folder = write_imagenet100_parquet(tmp_path / "data", 2, 1)
        case "cifar10":
            folder = write_cifar10(tmp_path / "data", 6, 2)
        case _:
            folder = write_folder(tmp_path / "data", ("boots", "coats", "shirts"), all=20)
    sizes = ("patch=16",) if task == "cifar10" else ("patch=16", "image_size=32")
    mixed = ("augmentation=randaugment", "mixup=0.8", "cutmix=1", "erase=0.5", "ema=0.9", "drop_path=0.3")
    config = resolve(task=task, mixer="fem", scale="board", sets=(*TINY, *sizes, *mixed), unmatched=True)
    whole = start(config, data_dir=folder, device="cpu").record
    assert whole.status == "finished"
    assert whole.data is not None
    assert whole.n_evaluated["test"] == whole.data.splits["test"]
    assert ("top5" in whole.metrics["test"]) == (task != "folder")
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = start(config, data_dir=folder, device="cpu").record
    assert stopped.status == "interrupted"
    assert equal_runs(resume(stopped.id, data_dir=None, device="cpu").record, whole)
