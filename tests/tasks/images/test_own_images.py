"""`folder`: a user's own images, one folder per class, and what is ignored in it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from hashlib import sha256

import pytest

from tasks.images import image_set
from tasks.images.class_folders import FolderSet
from tasks.images.own_images import OwnImages
from tests.tasks.errors import error_of
from tests.tasks.images.image_files import files_of, write_folder, write_parquet
from tests.tasks.images.image_reading import SMALL, labelled_pixels

NAMES = ("boots", "coats", "shirts")


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ({"all": 20}, (48, 6, 6)),
        ({"train": 20}, (48, 6, 6)),
        ({"train": 10, "val": 4}, (27, 3, 12)),
        ({"train": 10, "test": 4}, (27, 3, 12)),
        ({"train": 10, "valid": 2, "test": 4}, (30, 6, 12)),
    ],
)
def test_the_parts_of_a_folder_are_used_and_missing_splits_held_out(tmp_path, counts, sizes):
    write_folder(tmp_path, NAMES, **counts)
    task = OwnImages(SMALL, tmp_path)
    assert tuple(task.n_examples(split) for split in ("train", "valid", "test")) == sizes
    assert task.set.classes == NAMES
    held = [image.path for images in task.images.values() for image in images]
    assert len(held) == len(set(held)) == sum(counts.values()) * 3
    test_part = "test" if "test" in counts else "val" if "val" in counts else ""
    assert all(image.path.startswith(test_part) for image in task.images["test"])


def test_classes_are_counted_before_images_are_read_and_up_to_five_have_no_top5(tmp_path):
    write_folder(tmp_path / "few", NAMES, all=4)
    write_folder(tmp_path / "more", [f"c{i}" for i in range(6)], all=4)
    few, more = OwnImages(SMALL, tmp_path / "few"), OwnImages(SMALL, tmp_path / "more")
    assert (few.spec.classes, more.spec.classes) == (3, 6)
    assert not few.index
    assert [metric.name for metric in few.metrics] == ["top1", "loss"]
    assert [metric.name for metric in more.metrics] == ["top1", "top5", "loss"]


def test_any_parquet_set_with_class_names_can_be_used(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        write_parquet(tmp_path / "data", part, list(files_of(3, count)), NAMES, image="photo", label="kind")
    task = OwnImages(SMALL, tmp_path)
    assert task.spec.classes == 3
    assert [task.n_examples(split) for split in ("train", "valid", "test")] == [27, 3, 9]
    assert task.info().splits == {"train": 27, "valid": 3, "test": 9}


def test_folders_that_cannot_be_split_or_have_no_classes_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "single", NAMES, all=1)
    write_folder(tmp_path / "twice", NAMES, train=2, val=1, valid=1)
    write_folder(tmp_path / "other", NAMES, train=2, test=1)
    shutil.rmtree(tmp_path / "other" / "test" / "coats")
    for name, parts in {
        "empty": ("0 class folder(s)", "one folder per class"),
        "single": ("nothing can be held out", "add images"),
        "twice": ("val/ and valid/", "keep one of them"),
        "other": ("1 missing (coats)",),
        "none": ("is not a folder", "--data-dir DIR"),
    }.items():
        message = error_of(OwnImages(SMALL, tmp_path / name).load)
        for part in (str(tmp_path / name), *parts):
            assert part in message
    assert str(tmp_path / "none") in error_of(lambda: OwnImages(SMALL, tmp_path / "none").spec)
    assert "--data-dir DIR" in error_of(OwnImages().load)


def put(root, sizes):
    """Writes files of the given numbers of bytes."""
    for name, size in sizes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return root


def test_images_in_subfolders_of_a_class_belong_to_it_whatever_their_names(tmp_path):
    put(tmp_path, {"a/1.png": 5, "a/sub/1.png": 6, "a/sub/deep/1.PNG": 7, "b/sub/1.jpg": 8, "a/sub.png/2.png": 9})
    found = FolderSet(tmp_path, None)
    assert [(image.path, image.label, image.size) for image in found.listing] == [
        ("a/1.png", 0, 5),
        ("a/sub.png/2.png", 0, 9),
        ("a/sub/1.png", 0, 6),
        ("a/sub/deep/1.PNG", 0, 7),
        ("b/sub/1.jpg", 1, 8),
    ]
    assert [len(file) for chunk in range(len(found.chunks)) for file in found.encoded(chunk)] == [5, 9, 6, 7, 8]


def test_nested_folders_give_the_same_images_as_flat_ones(tmp_path):
    write_folder(tmp_path / "flat", NAMES, train=8, test=2)
    write_folder(tmp_path / "deep", NAMES, train=8, test=2)
    for name in NAMES:
        (tmp_path / "deep" / "train" / name / "more" / "of it").mkdir(parents=True)
        for file in sorted((tmp_path / "deep" / "train" / name).glob("*.*"))[::2]:
            file.rename(file.parent / "more" / "of it" / file.name)
    flat, deep = (OwnImages(SMALL, tmp_path / layout) for layout in ("flat", "deep"))
    assert labelled_pixels(flat) == labelled_pixels(deep)
    assert [deep.n_examples(split) for split in ("train", "valid", "test")] == [21, 3, 6]
    assert flat.fingerprint != deep.fingerprint


def test_the_fingerprint_covers_classes_names_sizes_and_the_content_of_files(tmp_path, monkeypatch):
    put(tmp_path, {"train/b/B.png": 3, "train/b/a.jpg": 4, "train/a/z.tif": 5, "train/a/y.tif": 6})
    found = FolderSet(tmp_path, None)
    named = [["train/a/y.tif", 6], ["train/a/z.tif", 5], ["train/b/B.png", 3], ["train/b/a.jpg", 4]]
    assert [image.path for image in found.listing] == [path for path, _ in named]
    names = sha256(json.dumps([["a", "b"], named]).encode()).hexdigest()
    (tmp_path / "train/a/y.tif").write_bytes(b"others")
    assert len({found.fingerprint, names, FolderSet(tmp_path, None).fingerprint}) == 3
    monkeypatch.setattr(image_set, "HASHED_BYTES", 17)  # of larger sets, names and sizes
    assert FolderSet(tmp_path, None).fingerprint == names


def test_ignored_files_are_counted_by_suffix_in_info_and_prepare_note(tmp_path):
    write_folder(tmp_path, NAMES, all=4)
    classes = "3 classes: boots, coats, shirts"
    assert OwnImages(SMALL, tmp_path).prepare_note() == classes
    more = {f"boots/{i}.gif": 1 for i in range(25)} | {f"coats/sub/{i}.JFIF": 1 for i in range(5)}
    put(
        tmp_path,
        {
            **more,
            "coats/readme": 1,
            "outside.png": 1,
            "shirts/.hidden.gif": 1,
            "shirts/.cache/a.png": 1,
            ".git/a.png": 1,
        },
    )
    task = OwnImages(SMALL, tmp_path)
    note = task.prepare_note()
    for part in ("31 files", "(25 .gif, 5 .jfif, 1 without a suffix;", ".bmp, .jpeg, .jpg, ", "1 image outside"):
        assert part in note
    assert note == f"{task.set.ignored}; {classes}"
    assert task.set.ignored in task.info().notes
    assert len(task.set.listing) == 12


def test_circular_links_end_and_no_image_is_read_twice(tmp_path):
    put(tmp_path / "set", {"a/1.png": 1, "a/sub/2.png": 1, "b/1.png": 1})
    put(tmp_path / "elsewhere", {"x.png": 1})
    links = {
        "a/0": "a/sub",
        "a/sub/up": "a",
        "a/sub/root": ".",
        "a/sub/out": "../elsewhere",
        "b/out": "../elsewhere",
        "b/again": "b/out",
    }
    for link, target in links.items():
        (tmp_path / "set" / link).symlink_to(tmp_path / "set" / target, target_is_directory=True)
    (tmp_path / "set" / "b" / "itself").symlink_to("itself")
    found = FolderSet(tmp_path / "set", None)
    assert [image.path for image in found.listing] == [
        "a/1.png",
        "a/sub/2.png",
        "a/sub/out/x.png",
        "b/1.png",
        "b/again/x.png",
    ]
    assert "1 file of other types (1 without a suffix;" in found.ignored


@pytest.mark.parametrize("victim", [".", "a", "a/sub"])
def test_an_unreadable_folder_is_named(tmp_path, monkeypatch, victim):
    put(tmp_path, {"a/1.png": 1, "a/sub/1.png": 1, "b/1.png": 1})
    plain = os.scandir

    def scandir(path):  # permissions would not stop root
        if os.path.normpath(path) == os.path.normpath(tmp_path / victim):
            raise PermissionError(errno.EACCES, "Permission denied", os.path.normpath(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for action in (
        OwnImages(SMALL, tmp_path).load,
        *([lambda: OwnImages(SMALL, tmp_path).spec] if victim == "." else []),
    ):
        message = error_of(action)
        for part in (f"{tmp_path / victim} ", "Permission denied", "make it readable"):
            assert part in message


def test_folders_written_by_file_servers_are_neither_images_nor_classes(tmp_path):
    write_folder(tmp_path, NAMES, all=4)
    plain = OwnImages(SMALL, tmp_path)
    plain.load()
    put(tmp_path, {"@eaDir/a.png": 1, "boots/@eaDir/a.png": 1, "coats/deep/__MACOSX/a.png": 1})
    task = OwnImages(SMALL, tmp_path)
    task.load()
    assert task.set.classes == NAMES
    assert (task.fingerprint, task.prepare_note()) == (plain.fingerprint, plain.prepare_note())


def test_the_fingerprint_of_parquet_files_covers_their_content(tmp_path):
    write_parquet(tmp_path / "data", "train", list(files_of(3, 10)), NAMES)
    path = next((tmp_path / "data").glob("*.parquet"))
    before, content = OwnImages(SMALL, tmp_path).fingerprint, bytearray(path.read_bytes())
    at = content.index(b"\x89PNG") + 200
    content[at] ^= 1
    path.write_bytes(content)
    assert OwnImages(SMALL, tmp_path).fingerprint != before
