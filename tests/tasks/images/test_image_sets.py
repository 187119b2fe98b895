"""Folders and Parquet files of images give the same labels; a set with other classes than the task's is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tasks
from tasks.base import Split
from tasks.images.cifar import CIFAR10, Cifar10, Cifar100, CifarOptions, cifar100_classes
from tasks.images.file_options import SizedImageOptions
from tasks.images.imagenet import ImageNet1k, ImageNet100, class_list, ids_of, synsets
from tasks.images.loading import TrainingKeys
from tasks.images.own_images import OwnImages
from tests.tasks.errors import error_of
from tests.tasks.images.image_files import files_of, write_folder, write_parquet
from tests.tasks.images.image_reading import SMALL, labelled_pixels, reader_of

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
NAMES = ("boots", "coats", "shirts")


def words() -> list[str]:
    """ImageNet-1k's class names on the hub: words, all different."""
    from timm.data import ImageNetInfo

    found = ImageNetInfo("imagenet-1k").label_descriptions(detailed=False)
    found[synsets().index("n03126707")] = "crane2"
    return found


def write_thousand(folder, names, *, shards=1):
    """Images of the hundred classes and ten others with ImageNet-1k's labels, three for training and one each."""
    known = [synsets().index(name) for name in class_list()]
    others = [i for i in range(1000) if i not in known][:10]
    for part, count, first in (("train", 3, 0), ("validation", 1, 3)):
        files = [
            *files_of(100, count, first),
            *((100 + label, name, file) for label, name, file in files_of(10, count, first)),
        ]
        write_parquet(folder / "data", part, files, names, shards=shards, order=[*known, *others])
    return folder


# --- the same images from both layouts


def test_parquet_and_folder_give_the_same_images_and_labels(tmp_path):
    write_folder(tmp_path / "folder", class_list(), train=2, val=1)
    for part, count, first in (("train", 2, 0), ("validation", 1, 2)):
        files = list(files_of(100, count, first))
        shuffled = [files[i] for i in np.random.default_rng(1).permutation(len(files))]
        write_parquet(tmp_path / "parquet", part, shuffled, class_list(), shards=3)
    from_folder, from_parquet = (ImageNet100(SMALL, tmp_path / layout) for layout in ("folder", "parquet"))
    assert len(labelled_pixels(from_folder)) == 300
    assert labelled_pixels(from_folder) == labelled_pixels(from_parquet)
    for task in (from_folder, from_parquet):
        assert [task.n_examples(split) for split in SPLITS] == [100, 100, 100]


@pytest.mark.parametrize("names", ["words", pytest.param("ids", marks=pytest.mark.slow)])
def test_imagenet100_selects_its_classes_from_imagenet_1ks_parquet_files(tmp_path, names):
    write_folder(tmp_path / "folder", class_list(), train=3, val=1)
    write_thousand(tmp_path / "parquet", words() if names == "words" else synsets(), shards=12)
    task = ImageNet100(SMALL, tmp_path / "parquet")
    assert labelled_pixels(task) == labelled_pixels(ImageNet100(SMALL, tmp_path / "folder"))
    assert task.set.classes == class_list()
    assert any(len(chunk) == 0 for chunk in task.set.chunks[:-1])  # a shard with none of the hundred


def test_parquet_files_may_list_the_hundred_classes_in_any_order(tmp_path):
    mixed = [class_list()[i] for i in np.random.default_rng(0).permutation(100)]
    for part, count in (("train", 2), ("validation", 1)):
        files = list(files_of(100, count))
        write_parquet(tmp_path, part, files, mixed, order=[mixed.index(name) for name in class_list()])
    task = ImageNet100(SMALL, tmp_path)
    task.load()
    names = [f"{class_list().index(task.set.classes[label]):03}" for label in task.set.listing.labels]
    assert names == [name[:3] for _, name, _ in [*files_of(100, 2), *files_of(100, 1)]]


def test_the_label_of_imagenets_names_is_the_index_in_the_sorted_ids():
    assert ids_of(words()) == synsets() == tuple(sorted(synsets()))
    assert set(class_list()) < set(synsets())
    swapped = words()
    swapped[3], swapped[700] = swapped[700], swapped[3]
    message = error_of(lambda: ids_of(swapped))
    for part in (f"label 3 is {swapped[3]!r}", repr(swapped[700]), "ILSVRC/imagenet-1k"):
        assert part in message
    assert "label 0 is 'class 0'" in error_of(lambda: ids_of([f"class {i}" for i in range(1000)]))


def test_classes_other_than_the_tasks_are_refused_by_name(tmp_path):
    files = list(files_of(100, 1))
    for part in ("train", "validation"):
        write_parquet(tmp_path / "one", part, files, [*class_list()[:99], "n00000001"])
        write_parquet(tmp_path / "few", part, files[:99], class_list()[:99])
    for folder in ("one", "few"):
        assert f"1 missing ({class_list()[99]})" in error_of(ImageNet100(SMALL, tmp_path / folder).load)
    assert "1 not in the list (n00000001)" in error_of(ImageNet100(SMALL, tmp_path / "one").load)
    message = error_of(ImageNet1k(SMALL, tmp_path / "one").load)
    assert message.startswith("imagenet1k: ")
    assert "901 missing" in message


def test_imagenet1k_needs_a_folder_with_its_thousand_classes(tmp_path):
    write_folder(tmp_path, class_list(), train=1, val=1)
    message = error_of(ImageNet1k(SMALL, tmp_path).load)
    for part in (f"{tmp_path / 'train'}: ", "1000", "900 missing (n01440764"):
        assert part in message
    assert ImageNet1k().spec.classes == 1000
    assert "gated" in ImageNet1k.summary


# --- CIFAR


def test_cifar10_reads_the_hubs_files_and_folders_equally(tmp_path, cifar_folder):
    for part, count, first in (("train", 12, 0), ("test", 4, 12)):
        for label, name, file in files_of(10, count, first, side=32):
            folder = tmp_path / part / CIFAR10[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(file)
    from_parquet, from_folder = Cifar10(None, cifar_folder), Cifar10(None, tmp_path)
    assert labelled_pixels(from_parquet) == labelled_pixels(from_folder)
    assert [from_parquet.n_examples(split) for split in SPLITS] == [110, 10, 40]


def test_cifar100_reads_the_fine_labels_and_corrects_the_hubs_typo(tmp_path):
    typo = ["cra" if name == "crab" else name for name in cifar100_classes()]
    coarse = [f"group {i}" for i in range(20)]
    for part, count in (("train", 2), ("test", 1)):
        files = list(files_of(100, count, side=32))
        write_parquet(tmp_path / "cifar100", part, files, typo, image="img", label="fine_label", coarse=coarse)
    task = Cifar100(None, tmp_path)
    task.load()
    assert task.set.listing.labels.tolist() == [
        label for count in (2, 1) for label, _, _ in files_of(100, count, side=32)
    ]
    assert task.set.classes == cifar100_classes()


def test_cifar_is_cropped_from_the_padded_image_and_evaluated_unchanged(cifar_folder):
    task = Cifar10(CifarOptions(augmentation="crop-flip", erase=0, mixup=0, cutmix=0), cifar_folder)
    reader = reader_of(task)
    (batch,) = task.eval_batches("test", 40)
    mean, std = (np.array(values)[:, None, None] for values in (task.preprocessing.mean, task.preprocessing.std))
    for i, index in enumerate(task.index["test"].tolist()):
        pixels = np.asarray(reader.read(index)).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(batch.inputs[i].numpy(), (pixels - mean) / std, atol=1e-5)
    keys = next(iter(TrainingKeys(task.index["train"], 12, seed=0, start_step=0)))
    moved = 0
    for image, (index, *_) in zip(next(task.train_batches(0, 12)).inputs.numpy() * std + mean, keys, strict=True):
        source = np.asarray(reader.read(index)).transpose(2, 0, 1) / 255
        padded = np.pad(source, ((0, 0), (4, 4), (4, 4)))
        crops = [padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
        assert any(np.allclose(image, one, atol=1e-5) for crop in crops for one in (crop, crop[:, :, ::-1]))
        moved += not any(np.allclose(image, one, atol=1e-5) for one in (source, source[:, :, ::-1]))
    assert moved >= 9


# --- invalid Parquet files


def test_a_missing_shard_or_shards_of_two_versions_are_named(tmp_path):
    files = list(files_of(3, 4))
    for part in ("train", "test"):
        write_parquet(tmp_path, part, files, NAMES, shards=3)
    shard = tmp_path / "train-00001-of-00003.parquet"
    content = shard.read_bytes()
    shard.unlink()
    lacking = error_of(OwnImages(SMALL, tmp_path).load)
    assert "shard 00001 of 00003" in lacking
    shard.write_bytes(content)
    shutil.copy(shard, tmp_path / "train-00000-of-00001.parquet")
    mixed = error_of(OwnImages(SMALL, tmp_path).load)
    assert "two versions" in mixed
    for message in (lacking, mixed):
        assert "part train" in message
        assert "download all files again" in message


def test_files_with_other_classes_than_the_first_file_are_refused(tmp_path):
    write_parquet(tmp_path, "train", list(files_of(3, 4)), NAMES)
    write_parquet(tmp_path, "test", list(files_of(3, 4)), NAMES[::-1])
    message = error_of(OwnImages(SMALL, tmp_path).load)
    assert str(tmp_path / "test-00000-of-00001.parquet") in message
    assert "download all files again" in message


def test_a_limited_split_is_spread_over_the_classes_for_any_order_of_rows(tmp_path):
    files = list(files_of(3, 20))
    for part in ("train", "test"):
        write_parquet(tmp_path, part, [files[i] for i in np.random.default_rng(3).permutation(60)], NAMES)
    task = OwnImages(SizedImageOptions(image_size=32, patch=8, test_limit=9, valid_limit=3), tmp_path)
    assert [[image.label for image in task.images[split]] for split in ("valid", "test")] == [
        [0, 1, 2],
        [0, 0, 0, 1, 1, 1, 2, 2, 2],
    ]


def test_parquet_files_with_other_names_or_without_metadata_are_refused(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    write_parquet(tmp_path / "a", "train", list(files_of(3, 4)), NAMES)
    written = tmp_path / "a" / "train-00000-of-00001.parquet"
    table = parquet.read_table(written)
    (tmp_path / "b").mkdir()
    parquet.write_table(table.replace_schema_metadata(None), tmp_path / "b" / written.name)
    message = error_of(OwnImages(SMALL, tmp_path / "b").load)
    for part in (str(tmp_path / "b" / written.name), "image, label", "write it with Hugging Face datasets"):
        assert part in message
    written.rename(written.with_name("mine.parquet"))
    message = error_of(OwnImages(SMALL, tmp_path / "a").load)
    assert "mine.parquet" in message
    assert "train-00000-of-00001.parquet" in message
    (tmp_path / "b" / written.name).write_bytes(b"not Parquet")
    assert f"{tmp_path / 'b' / written.name} cannot be read" in error_of(OwnImages(SMALL, tmp_path / "b").load)
    assert json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"] == list(NAMES)
    assert pa.types.is_struct(table.schema.field("image").type)


@pytest.mark.parametrize(
    ("column", "parts"),
    [("label", ("row 2 is -1", "0 to 2")), ("bytes", ("row 2: no image bytes", "store the images in the file"))],
)
def test_unlabelled_rows_and_rows_without_an_image_are_named(tmp_path, column, parts):
    files: list[tuple[int, str, bytes | None]] = list(files_of(3, 4))
    order = [0, 1, 2]
    if column == "label":
        files[2] = (3, *files[2][1:])
        order.append(-1)
    else:
        files[2] = (files[2][0], files[2][1], None)
    write_parquet(tmp_path, "train", files, NAMES, order=order)
    message = error_of(OwnImages(SMALL, tmp_path).load)
    for part in ("train-00000-of-00001.parquet", *parts):
        assert part in message


def test_prepare_names_a_damaged_image_of_a_parquet_file(tmp_path):
    files = list(files_of(3, 6))
    files[7] = (*files[7][:2], files[7][2][:-150])
    write_parquet(tmp_path, "train", files, NAMES)
    message = error_of(OwnImages(SMALL, tmp_path).prepare)
    for part in ("1 of 18 images", f"{tmp_path}: row 7 of train-00000-of-00001.parquet"):
        assert part in message


# --- the hub


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet1k", "imagenet100"])
def test_without_a_folder_and_a_network_the_error_suggests_data_dir(name):
    message = error_of(tasks.get(name)().prepare)
    assert "pass --data-dir DIR" in message
    assert ("gated" in message) == name.startswith("imagenet")
    assert tasks.get(name)().info().fingerprint == ""


def test_images_in_the_hubs_cache_need_neither_a_folder_nor_a_network(monkeypatch, cifar_folder):
    monkeypatch.setattr(
        "tasks.storage.hub.cached", lambda repo, file: cifar_folder / file if repo == "uoft-cs/cifar10" else None
    )
    task = Cifar10()
    assert task.info().splits == {"train": 110, "valid": 10, "test": 40}
    assert labelled_pixels(task) == labelled_pixels(Cifar10(None, cifar_folder))
