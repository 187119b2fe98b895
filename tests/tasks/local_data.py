"""Small local data for every registered task, in the format in which the field, the hub or a user has them, and options
that make the task small with every augmentation on.

A task that is not listed here fails tests/tasks/test_contract.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.images.cifar import CIFAR10, cifar100_classes
from tasks.images.imagenet import class_list, synsets
from tasks.text.wikitext import WikiText103
from tests.tasks.images.image_files import files_of, write_folder, write_parquet
from tests.tasks.series.series_files import power, write_csv, write_exchange, write_gluonts, write_solar
from tests.tasks.text.corpus_files import addresses, pages, write_fineweb, write_text, write_wikitext

Writer = Callable[[Path], Path]  # from an empty folder to what --data-dir names


@dataclass(frozen=True)
class Local:
    """One task: options, the writer of its data (None: it ships or draws them), and class attributes that say how large
    the published data are, replaced where those would take minutes.
    """

    options: Mapping[str, Any]
    write: Writer | None = None
    published: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False  # much like another task of the list


def _etth(folder: Path) -> Path:
    columns = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    return write_csv(folder / "ETT-small" / "any.csv", power(ETT_ROWS), columns, "2016-07-01", "h")


def _wide(columns: int, freq: str) -> Writer:
    """A CSV file of 600 rows and many series."""

    def write(folder: Path) -> Path:
        values = np.tile(power(600), (1, -(-columns // 7)))[:, :columns]
        return write_csv(folder / "wide.csv", values, tuple(map(str, range(columns))), "2016-07-01", freq)

    return write


def _parquet(
    names: Callable[[], tuple[str, ...]], part_names: tuple[str, str], counts: tuple[int, int], **columns: Any
) -> Writer:
    """The hub's Parquet files of `counts` training and evaluation pictures per class, 32 × 32."""

    def write(folder: Path) -> Path:
        for part, count, first in zip(part_names, counts, (0, counts[0]), strict=True):
            files = list(files_of(len(names()), count, first, side=32))
            write_parquet(folder / "data", part, files, names(), **columns)
        return folder

    return write


def _imagenet100(folder: Path) -> Path:
    return write_folder(folder, class_list(), train=3, val=2)


def _own_images(folder: Path) -> Path:
    return write_folder(folder, ("bags", "boots", "coats", "hats", "shirts", "ties"), all=18)


def _own_text(folder: Path) -> Path:
    for name, text in zip(("train", "valid", "test"), addresses(), strict=False):
        write_text(folder / name / "address.txt", text)
    return folder


def _own_series(folder: Path) -> Path:
    return write_csv(folder / "mine.csv", power(1_000), tuple("abcdefg"), "2021-01-01", "h")


def _exchange(folder: Path) -> Path:
    write_exchange(folder)
    return folder


def _gluonts(folder: Path) -> Path:
    write_gluonts(folder, "power_hourly", rolling=4)
    return folder


ETT_ROWS = 2_000
FEW = {"valid_limit": 41, "test_limit": 45}
RECALL = {"train_examples": 300, "valid_examples": 41, "test_examples": 45}
FORECAST = {"horizon": 24, "track": "fixed-96", **FEW}
#: Of the published ETT, 20 of 24 months are used; here a "month" is as long as 2,000 rows allow.
ETT = {"rows": ETT_ROWS, "known": "", "_ends": lambda self, rows: (1_200, 1_600, 2_000)}
IMAGES = {"image_size": 32, "patch": 8}
TOKENS = {"length": 64, "tokenizer": "bytes", **FEW}

LOCAL: dict[str, Local] = {
    "sotu": Local({"length": 64, **FEW}),
    "fashion-mnist": Local({"mixup": 0.2, "erase": 0.5, "label_smoothing": 0.1}),
    "cifar10": Local({"patch": 8}, _parquet(lambda: CIFAR10, ("train", "test"), (6, 3), image="img")),
    "cifar100": Local(
        {"patch": 8, "test_limit": 45},
        _parquet(cifar100_classes, ("train", "test"), (2, 1), image="img", label="fine_label"),
        slow=True,
    ),
    "imagenet100": Local({**IMAGES, **FEW}, _imagenet100, slow=True),
    "imagenet1k": Local(
        {**IMAGES, "augmentation": "crop-flip", **FEW},
        _parquet(synsets, ("train", "validation"), (2, 1)),
        slow=True,
    ),
    "folder": Local({**IMAGES, "stored_side": 30}, _own_images, slow=True),
    "household-power": Local({"horizon": 24, **FEW}),
    "wikitext2": Local(TOKENS, write_wikitext),
    "wikitext103": Local(
        TOKENS,
        lambda folder: write_wikitext(folder, WikiText103, {"train": 4000, "valid": 400, "test": 400}),
        {"rows": {"train": 4000, "valid": 400, "test": 400}},
        slow=True,
    ),
    "fineweb-edu": Local({**TOKENS, "tokens": 20_000}, lambda folder: write_fineweb(folder, pages(2500, 150))),
    "text": Local({"length": 32, "tokenizer": "bpe", "vocab": 300, **FEW}, _own_text),
    "etth1": Local(FORECAST, _etth, ETT),
    "etth2": Local(FORECAST, _etth, ETT, slow=True),
    "ettm1": Local(FORECAST, _etth, ETT, slow=True),
    "ettm2": Local(FORECAST, _etth, ETT, slow=True),
    "weather": Local(FORECAST, _wide(21, "10min"), {"rows": 600}),
    "electricity": Local(FORECAST, _wide(321, "h"), {"rows": 600}, slow=True),
    "traffic": Local(FORECAST, _wide(862, "h"), {"rows": 600}, slow=True),
    "exchange": Local(FORECAST, _exchange, slow=True),
    "solar": Local(FORECAST, lambda folder: write_solar(folder, 600, 137), {"rows": 600}),
    "csv": Local({"horizon": 24, "track": "searched", "look_back": 96, **FEW}, _own_series),
    "gluonts": Local({"dataset": "power_hourly", "look_back": 48, "head": "student-t", "test_limit": 45}, _gluonts),
    "mqar": Local({**RECALL, "vocab": 128}),
    "mad-in-context": Local({**RECALL, "length": 32}),
    "mad-noisy": Local({**RECALL, "length": 32}),
    "mad-fuzzy": Local({**RECALL, "length": 48}),
    "mad-memorize": Local({**RECALL, "vocab": 20}),
    "mad-compress": Local({**RECALL, "length": 8}),
    "mad-copy": Local({**RECALL, "length": 24, "tokens": 4}),
    "parity": Local({**RECALL, "length": 12}),
    "s3": Local({**RECALL, "length": 12}),
    "s5": Local({**RECALL, "length": 9}),
    "mano": Local({**RECALL, "length": 4}),
}
