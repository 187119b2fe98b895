"""Folders of images: which folders are parts of the set, which are classes, and what is reported about the others."""

from __future__ import annotations

import pytest

from tasks.images.own_images import OwnImages
from tests.tasks.errors import error_of
from tests.tasks.images.image_files import write_folder
from tests.tasks.images.image_reading import SMALL

NAMES = ("boots", "coats", "shirts")


@pytest.mark.parametrize(
    "parts",
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("seg_train", "seg_test"),
        ("train-set", "dev set"),
        ("training", "validation"),
        ("trainset", "testset"),
        ("TrainSet", "TestSet"),
        ("TRAINSet", "tESTset"),
        ("traindata", "valimages"),
        ("myTrain", "myTest"),
    ],
)
def test_folders_that_name_splits_are_parts_and_never_classes(tmp_path, parts):
    write_folder(tmp_path, NAMES, **{parts[0]: 10, parts[1]: 4})
    task = OwnImages(SMALL, tmp_path)
    assert task.spec.classes == 3
    assert tuple(task.n_examples(split) for split in ("train", "valid", "test")) == (27, 3, 12)
    assert all(image.path.startswith(f"{parts[1]}/") for image in task.images["test"])


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (("fold_1", "fold_2"), "fold_1/, fold_2/"),
        (("a", "b", "c"), "a/, b/, c/"),
        (("test", "val"), "test/"),
        (("my_test", "my_val"), "my_test/"),
    ],
)
def test_a_folder_of_parts_without_training_part_is_refused(tmp_path, parts, named):
    write_folder(tmp_path, NAMES, **dict.fromkeys(parts, 4))
    message = error_of(OwnImages(SMALL, tmp_path).load)
    assert named in message
    assert "train" in message


def test_a_flat_folder_next_to_equal_parts_makes_them_no_classes(tmp_path):
    write_folder(tmp_path, NAMES, fold_1=4, fold_2=4)
    write_folder(tmp_path, ("samples",), all=6)
    message = error_of(OwnImages(SMALL, tmp_path).load)
    assert "fold_1/, fold_2/ all hold the same folders" in message


@pytest.mark.parametrize(("train", "test"), [("trainset", "testset"), ("Train", "TestData")])
def test_a_flat_test_part_is_no_class_next_to_a_training_part(tmp_path, train, test):
    write_folder(tmp_path, NAMES, **{train: 10})
    write_folder(tmp_path, (test,), all=6)
    task = OwnImages(SMALL, tmp_path)
    assert task.spec.classes == 3
    assert f"ignored: the folder {test}/" in task.prepare_note()


def test_unlabelled_train_and_test_folders_are_not_two_classes(tmp_path):
    write_folder(tmp_path, ("train", "test"), all=6)
    assert "0 class folder(s)" in error_of(OwnImages(SMALL, tmp_path).load)


def test_a_class_may_be_called_train_or_contain_the_word_test(tmp_path):
    write_folder(tmp_path / "vehicles", ("bus", "car", "train"), all=6)
    write_folder(tmp_path / "glass", ("beaker", "test tube"), all=6)
    assert OwnImages(SMALL, tmp_path / "vehicles").spec.classes == 3
    assert OwnImages(SMALL, tmp_path / "glass").spec.classes == 2


def test_classes_may_share_one_subfolder(tmp_path):
    for name in NAMES:
        write_folder(tmp_path / name, ("images",), all=6)
    task = OwnImages(SMALL, tmp_path)
    task.load()
    assert task.set.classes == NAMES


def test_the_classes_and_the_folders_that_are_not_used_are_reported(tmp_path):
    write_folder(tmp_path, NAMES, train=10, eval=3, pred=2)
    task = OwnImages(SMALL, tmp_path)
    for text in (task.prepare_note(), "; ".join(task.info().notes)):
        assert "3 classes: boots, coats, shirts" in text
        assert "the folders eval/, pred/" in text
