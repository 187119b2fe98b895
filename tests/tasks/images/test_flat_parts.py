"""A part whose images are in one folder: with a labels file, it is the same set as with class folders."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.io import savemat

from tasks.images.imagenet import ImageNet1k, ImageNet100, class_list, synsets
from tasks.images.own_images import OwnImages
from tests.tasks.errors import error_of
from tests.tasks.images.image_files import write_folder
from tests.tasks.images.image_reading import SMALL, labelled_pixels

NAMES = ("boots", "coats", "shirts")


def flatten(root, part="val", *, inner="", name="{name}"):
    """Moves the images of a part out of their class folders; returns (file name, class) in order of their names."""
    folder, pairs = root / part, []
    for number, path in enumerate(sorted(folder.glob("*/*")), 1):
        new = name.format(name=path.name, number=number) + ("" if name == "{name}" else path.suffix)
        pairs.append((new, path.parent.name))
        (root / f"{part}.new" / inner).mkdir(parents=True, exist_ok=True)
        path.rename(root / f"{part}.new" / inner / new)
    shutil.rmtree(folder)
    (root / f"{part}.new").rename(folder)
    return sorted(pairs)


def write_labels(path, pairs, between=" "):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}{between}{label}\n" for name, label in pairs))


@pytest.mark.parametrize(
    ("place", "between", "inner"),
    [
        ("val_labels.txt", " ", ""),
        ("valid_labels.txt", "   ", ""),
        ("val/val_labels.txt", "\t", ""),
        ("val/val_annotations.txt", "\t", "images"),
    ],
)
def test_a_labels_file_makes_the_set_that_class_folders_make(tmp_path, place, between, inner):
    whole = OwnImages(SMALL, write_folder(tmp_path / "whole", NAMES, train=12, val=5))
    flat = write_folder(tmp_path / "flat", NAMES, train=12, val=5)
    pairs = flatten(flat, inner=inner)
    write_labels(flat / place, [(name, f"{label}\t0\t32" if inner else label) for name, label in pairs], between)
    task = OwnImages(SMALL, flat)
    assert labelled_pixels(task) == labelled_pixels(whole)
    assert task.fingerprint == whole.fingerprint
    assert task.images == whole.images
    assert str(flat / "val" / inner / pairs[0][0]) in {task.set.location(i) for i in range(len(task.set.listing))}


def test_a_flat_test_part_with_labels_is_the_test_split(tmp_path):
    write_folder(tmp_path, NAMES, train=12, val=4, test=5)
    write_labels(tmp_path / "test_labels.txt", flatten(tmp_path, "test"))
    task = OwnImages(SMALL, tmp_path)
    assert [task.n_examples(split) for split in ("train", "valid", "test")] == [36, 12, 15]


@pytest.mark.parametrize(("part", "then"), [("val", ""), ("test", ", then val/ is the test split")])
def test_images_without_class_folders_or_labels_are_refused_with_each_way_out(tmp_path, part, then):
    write_folder(tmp_path, NAMES, train=12, val=4, **({"test": 5} if part == "test" else {}))
    pairs = flatten(tmp_path, part)
    message = error_of(OwnImages(SMALL, tmp_path).load)
    for expected in (
        f"{tmp_path / part} holds {len(pairs)} images but no class folders, so no labels",
        f"put their classes into {part}_labels.txt, one line FILE CLASS per image, such as 'a.jpg boots'",
        "make one folder per class",
        f"move {part}/ away{then}",
    ):
        assert expected in message
    assert ("LOC_val_solution.csv" in message) == (part == "val")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda pairs: pairs[1:], "val_labels.txt has no line for 1 of the 15 images"),
        (
            lambda pairs: [(pairs[0][0], "hats"), *pairs[1:]],
            "the class 'hats', which is none of the set's: boots, coats",
        ),
        (lambda pairs: [(name, "boots") for name, _ in pairs], "no image to 2 of the 3 classes, such as coats"),
        (lambda pairs: [*pairs, (pairs[0][0], "coats")], "line 16: "),
        (lambda pairs: [("alone", "")], "line 1: 'alone ' is not a file name and a class"),
    ],
)
def test_a_labels_file_that_does_not_fit_is_refused_with_the_place(tmp_path, change, expected):
    write_folder(tmp_path, NAMES, train=12, val=5)
    write_labels(tmp_path / "val_labels.txt", change(flatten(tmp_path)))
    assert expected in error_of(OwnImages(SMALL, tmp_path).load)


def test_labels_without_an_image_are_counted(tmp_path):
    write_folder(tmp_path, NAMES, train=12, val=5)
    write_labels(tmp_path / "val_labels.txt", [*flatten(tmp_path), ("gone.png", "boots")])
    task = OwnImages(SMALL, tmp_path)
    task.load()
    assert "1 labels without an image" in task.set.ignored


# --- ImageNet's own files


def truth(folder, pairs):
    """The official numbers, in an order that is not that of the ids, and their list as MATLAB writes it."""
    order = np.random.default_rng(0).permutation(len(synsets()))
    number = {synsets()[place]: n for n, place in enumerate(order.tolist(), 1)}
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{number[label]}\n" for _, label in pairs)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(n, label, 0) for label, n in sorted(number.items(), key=lambda pair: pair[1])]
    savemat(folder / "meta.mat", {"synsets": np.array([*rows, (1001, "n00001740", 2)], dtype=kinds)})


def solution(folder, pairs):
    lines = [f"{name.rpartition('.')[0]},{label} 1 2 30 40 {label} 5 6 7 8 " for name, label in pairs]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]) + "\n")


@pytest.mark.parametrize(
    "write",
    [
        solution,
        truth,
        lambda root, pairs: truth(root / "ILSVRC2012_devkit_t12" / "data", pairs),
        lambda root, pairs: write_labels(root / "val_labels.txt", pairs),
    ],
    ids=["kaggle", "official", "kit", "pairs"],
)
@pytest.mark.slow
def test_a_flat_validation_part_of_imagenet_is_read_with_its_published_labels(tmp_path, write):
    whole = ImageNet100(SMALL, write_folder(tmp_path / "whole", class_list(), train=3, val=2))
    flat = write_folder(tmp_path / "flat", class_list(), train=3, val=2)
    (flat / "test").mkdir()
    pairs = flatten(flat, name="ILSVRC2012_val_{number:08}")
    write(flat, pairs)
    task = ImageNet100(SMALL, flat)
    assert labelled_pixels(task) == labelled_pixels(whole)
    assert task.n_examples("test") == 200


def test_images_of_the_other_classes_of_imagenet_are_not_used_and_counted(tmp_path):
    some = (*class_list(), *(name for name in synsets() if name not in class_list()))[:110]
    write_folder(tmp_path, some, train=3, val=2)
    for name in some[100:]:
        shutil.rmtree(tmp_path / "train" / name)
    write_labels(tmp_path / "val_labels.txt", flatten(tmp_path))
    task = ImageNet100(SMALL, tmp_path)
    assert task.n_examples("test") == 200
    assert "20 images of other classes" in task.set.ignored


def test_official_numbers_without_their_list_or_damaged_are_refused(tmp_path):
    write_folder(tmp_path, class_list(), train=3, val=2)
    truth(tmp_path, flatten(tmp_path, name="ILSVRC2012_val_{number:08}"))
    meta, numbers = tmp_path / "meta.mat", tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    content = meta.read_bytes()
    meta.unlink()
    assert "copy data/meta.mat next to it" in error_of(ImageNet100(SMALL, tmp_path).load)
    meta.write_bytes(content[:500])
    assert f"{meta} is not the list of classes" in error_of(ImageNet100(SMALL, tmp_path).load)
    meta.write_bytes(content)
    numbers.write_text("5000\n" + numbers.read_text())
    assert "line 1: '5000' is not a number of" in error_of(ImageNet100(SMALL, tmp_path).load)


def test_every_task_explains_how_a_flat_part_is_labelled():
    for task in (OwnImages(), ImageNet1k()):
        assert any("val_labels.txt" in note for note in task.info().notes)


def test_a_part_without_one_of_the_classes_names_the_training_part(tmp_path):
    write_folder(tmp_path, NAMES, train=6, val=2)
    shutil.rmtree(tmp_path / "val" / "coats")
    message = error_of(OwnImages(SMALL, tmp_path).load)
    assert "do not match the 3 of train/: 1 missing (coats); every part needs images of the same classes" in message
