"""Images stored in the cache: the same pixels as without it, built once, resumed after an interruption."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from tasks.images import class_folders, readers
from tasks.images.class_folders import FolderSet
from tasks.images.file_options import SizedImageOptions
from tasks.images.own_images import OwnImages
from tasks.images.readers import SETTING, FileReader, open_images
from tasks.images.store import Store
from tests.tasks.errors import error_of
from tests.tasks.images.image_files import files_of, write_folder, write_parquet
from tests.tasks.images.image_reading import reader_of

NAMES = ("boots", "coats", "shirts")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A separate cache for the test."""
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """60 images in chunks of 25."""
    monkeypatch.setattr(class_folders, "CHUNK", 25)
    return write_folder(tmp_path / "set", NAMES, all=20)


def take(iterator, n):
    return list(itertools.islice(iterator, n))


def chunks_of(cache):
    return sorted(cache.rglob("*.npy"))


@pytest.mark.parametrize("side", [0, 36])
def test_batches_are_the_same_with_and_without_the_cache(folder, own_cache, monkeypatch, side):
    options = SizedImageOptions(image_size=32, patch=8, stored_side=side)
    cached = OwnImages(options, folder)
    first = [*take(cached.train_batches(0, 8), 2), *cached.eval_batches("test", 4)]
    assert isinstance(cached._reader, Store)
    assert chunks_of(own_cache)
    monkeypatch.setenv(SETTING, "off")
    again = OwnImages(options, folder)
    second = [*take(again.train_batches(0, 8), 2), *again.eval_batches("test", 4)]
    assert isinstance(again._reader, FileReader)
    assert all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("decoded", [True, False])
def test_images_read_in_random_order_equal_those_of_their_files(folder, own_cache, monkeypatch, decoded):
    write_parquet(folder.with_name("parquet"), "train", list(files_of(3, 20)), NAMES, shards=3)
    monkeypatch.setenv(SETTING, "auto" if decoded else "off")
    task = OwnImages(None, folder.with_name("parquet"))
    reader = reader_of(task)
    assert isinstance(reader, Store)
    assert reader.decoded == decoded
    direct = FileReader(FolderSet(folder, None), 0)
    order = np.random.default_rng(0).permutation(60).tolist()
    copied = pickle.loads(pickle.dumps(reader))  # as in loader processes that are not forked
    for i in order:
        assert np.array_equal(np.asarray(reader.read(i)), np.asarray(direct.read(i)))
        assert np.array_equal(np.asarray(copied.read(i)), np.asarray(direct.read(i)))


@pytest.mark.slow
def test_evaluation_at_224_is_the_same_with_images_stored_at_256(tmp_path, own_cache):
    from tests.tasks.conftest import save_image

    for name in ("a", "b"):
        (tmp_path / "large" / name).mkdir(parents=True)
        for i in range(4):
            save_image(tmp_path / "large" / name / f"{i}.png", "RGB", 300 + 40 * i, 420 - 30 * i, i)
    plain, stored = (OwnImages(SizedImageOptions(stored_side=side), tmp_path / "large") for side in (0, 256))
    for a, b in zip(plain.eval_batches("train", 2), stored.eval_batches("train", 2), strict=True):
        assert torch.equal(a.inputs, b.inputs)
    assert min(reader_of(stored).read(0).size) == 256


def test_building_resumes_with_the_missing_chunk(folder, own_cache):
    images = FolderSet(folder, None)
    open_images(images, 0)
    written = chunks_of(own_cache)
    assert len(written) == 3
    before = {path: path.stat().st_mtime_ns for path in written}
    written[1].unlink()
    calls = []
    reader = open_images(images, 0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(25, 60), *((n, 60) for n in range(26, 51)), (60, 60)]
    after = {path: path.stat().st_mtime_ns for path in chunks_of(own_cache)}
    assert [path for path in written if after[path] != before[path]] == [written[1]]
    assert np.array_equal(np.asarray(reader.read(30)), np.asarray(FileReader(images, 0).read(30)))


def test_a_truncated_cache_file_is_reported_with_its_folder(folder, own_cache):
    reader = open_images(FolderSet(folder, None), 0)
    victim = chunks_of(own_cache)[1].with_suffix(".bin")
    victim.write_bytes(victim.read_bytes()[:-10])
    reader.read(3)
    message = error_of(lambda: reader.read(30))
    for part in (str(victim.parent), "truncated", "delete that folder"):
        assert part in message


def test_a_rewritten_file_is_decoded_again(folder, own_cache):
    old = np.asarray(reader_of(OwnImages(None, folder)).read(0))
    image, other = folder / "boots" / "000_0000.JPEG", folder / "coats" / "001_0004.JPEG"
    size = image.stat().st_size
    assert other.stat().st_size < size
    image.write_bytes(other.read_bytes().ljust(size, b"\0"))  # name and size do not change
    new = np.asarray(reader_of(OwnImages(None, folder)).read(0))
    assert new.shape != old.shape or not np.array_equal(new, old)


def test_pixels_beyond_the_limit_are_not_stored_and_the_note_gives_their_size(folder, own_cache, monkeypatch):
    images = FolderSet(folder, None)
    monkeypatch.setattr(readers, "RUN_LIMIT", 1000.0)
    monkeypatch.setattr(readers, "MIN_ANNOUNCED_BYTES", 1000.0)
    assert isinstance(open_images(images, 0, limit=1000.0), FileReader)
    assert "suite data prepare" in readers.cache_note(images, 0)
    monkeypatch.setattr(readers, "RUN_LIMIT", 1e9)
    assert f" MB of decoded pixels will be written to {own_cache}" in readers.cache_note(images, 0)
    open_images(images, 0)
    assert readers.cache_note(images, 0) == ""
    true_size = sum(path.stat().st_size for path in own_cache.rglob("*.bin"))
    assert readers.bytes_of_pixels(images, 0) == pytest.approx(true_size, rel=0.01)


def test_the_note_names_the_folder_for_the_images_of_parquet_files(folder, own_cache, monkeypatch):
    write_parquet(folder.with_name("parquet"), "train", list(files_of(3, 20)), NAMES)
    monkeypatch.setenv(SETTING, "off")
    task = OwnImages(None, folder.with_name("parquet"))
    note = task.prepare_note()
    assert note.startswith("about 0 MB of image files ")
    task.load()
    assert f" {chunks_of(own_cache)[0].parent} " in note
    assert task.prepare_note() == "3 classes: boots, coats, shirts"


def test_a_full_disk_is_reported_before_parquet_files_are_copied(folder, own_cache, monkeypatch):
    write_parquet(folder.with_name("parquet"), "train", list(files_of(3, 20)), NAMES)
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = error_of(OwnImages(None, folder.with_name("parquet")).load)
    for part in ("60 images", " 0 MB free", "set SUITE_CACHE"):
        assert part in message
    assert not chunks_of(own_cache)


def test_a_cache_that_cannot_be_written_is_reported_with_its_folder(folder, own_cache):
    images = FolderSet(folder, None)
    store = readers._pixel_store(images, 0)
    (store.folder / "lock").mkdir()  # permissions would not stop root
    message = error_of(lambda: open_images(images, 0))
    for part in (f"{store.folder} cannot be written", "set SUITE_CACHE"):
        assert part in message


def _open(folder, results):
    torch.set_num_threads(1)
    reader = reader_of(OwnImages(None, folder))
    results.put(sum(int(np.asarray(reader.read(i)).sum(dtype=np.int64)) for i in range(60)))


@pytest.mark.slow
def test_two_processes_at_once_build_a_store_once(folder, own_cache, monkeypatch):
    results = multiprocessing.get_context("fork").Queue()
    written = []
    plain = Store._write

    def counted(self, chunk, pool, progress):
        written.append(chunk)
        (own_cache / f"written-{chunk}-{len(list(own_cache.glob(f'written-{chunk}-*')))}").touch()
        return plain(self, chunk, pool, progress)

    monkeypatch.setattr(Store, "_write", counted)
    workers = [multiprocessing.get_context("fork").Process(target=_open, args=(folder, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    sums = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert len(set(sums)) == 1
    assert len(list(own_cache.glob("written-*"))) == 3
    assert len(chunks_of(own_cache)) == 3


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("suffix", [".bin", ".npy", ".sha256"])
def test_stored_images_that_are_not_as_they_were_written_are_refused(folder, own_cache, monkeypatch, decoded, suffix):
    write_parquet(folder.with_name("parquet"), "train", list(files_of(3, 20)), NAMES, shards=3)
    monkeypatch.setenv(SETTING, "auto" if decoded else "off")
    OwnImages(None, folder.with_name("parquet")).load()
    damaged = chunks_of(own_cache)[1].with_suffix(suffix)
    content, at = bytearray(damaged.read_bytes()), damaged.stat()
    content[-20] ^= 128
    damaged.write_bytes(content)
    os.utime(damaged, ns=(at.st_atime_ns, at.st_mtime_ns))
    message = error_of(OwnImages(None, folder.with_name("parquet")).load)
    for part in (str(damaged.parent), f"chunk {damaged.stem} ", "1 of 3 chunks", "delete that folder"):
        assert part in message
