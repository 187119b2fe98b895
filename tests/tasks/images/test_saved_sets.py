"""Image sets that `save_to_disk` of Hugging Face datasets wrote are the sets of their Parquet files."""

from __future__ import annotations

import shutil

import pytest

from tasks.base import DataError
from tasks.images.cifar import CIFAR10, Cifar10
from tasks.images.own_images import OwnImages
from tasks.images.parquet import Columns, read_labels
from tests.tasks.errors import error_of
from tests.tasks.images.image_files import files_of, write_cifar10, write_parquet
from tests.tasks.images.image_reading import SMALL, labelled_pixels

NAMES = ("boots", "coats", "shirts")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same pictures as Parquet files and saved, in three parts and in one."""
    from datasets import DatasetDict, load_dataset

    root = tmp_path_factory.mktemp("sets")
    first = 0
    for part, count in (("train", 12), ("validation", 3), ("test", 4)):
        write_parquet(root / "parquet", part, list(files_of(3, count, first)), NAMES)
        first += count
    files = {path.name.split("-")[0]: str(path) for path in (root / "parquet").iterdir()}
    parts = load_dataset("parquet", data_files=files, cache_dir=str(root / "cache"))
    assert isinstance(parts, DatasetDict)
    parts.save_to_disk(root / "saved", num_shards={"train": 2, "validation": 1, "test": 1})
    parts["train"].save_to_disk(root / "alone")
    return root


def test_a_saved_set_has_the_images_classes_and_parts_of_its_parquet_files(both):
    parquet, saved = (OwnImages(SMALL, both / name) for name in ("parquet", "saved"))
    assert saved.spec.classes == 3
    assert [saved.n_examples(split) for split in ("train", "valid", "test")] == [36, 9, 12]
    assert labelled_pixels(saved) == labelled_pixels(parquet)
    assert saved.fingerprint != ""
    assert "test/data-00000-of-00001.arrow" in saved.set.location(len(saved.set.listing) - 1)


def test_a_set_without_parts_is_split(both):
    task = OwnImages(SMALL, both / "alone")
    assert [task.n_examples(split) for split in ("train", "valid", "test")] == [30, 3, 3]


def test_a_missing_shard_is_named(both, tmp_path):
    shutil.copytree(both / "saved", tmp_path / "saved")
    (tmp_path / "saved" / "train" / "data-00001-of-00002.arrow").unlink()
    message = error_of(OwnImages(SMALL, tmp_path / "saved").load)
    assert f"{tmp_path / 'saved' / 'train'} lacks data-00001-of-00002.arrow" in message


@pytest.mark.parametrize(("pattern", "kind"), [("saved/test/*.arrow", "Arrow"), ("parquet/test-*.parquet", "Parquet")])
def test_a_shard_without_its_column_is_named_by_its_format(both, pattern, kind):
    (shard,) = both.glob(pattern)
    with pytest.raises(DataError, match=f"cannot be read as {kind}: "):
        read_labels(shard, Columns("image", "missing"), NAMES)


def test_a_task_that_needs_parts_refuses_a_set_without_them(both):
    assert "of the part train; the task needs train and test" in error_of(Cifar10(None, both / "alone").load)


def test_a_published_set_can_be_saved_too(tmp_path):
    from datasets import load_dataset

    write_cifar10(tmp_path / "hub", 6, 3)
    files = {part: str(tmp_path / "hub" / "plain_text" / f"{part}-*.parquet") for part in ("train", "test")}
    load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache")).save_to_disk(tmp_path / "saved")
    task = Cifar10(Cifar10.Options.model_validate({"patch": 8}), tmp_path / "saved")
    assert task.n_examples("test") == 30
    assert task.set.classes == CIFAR10
