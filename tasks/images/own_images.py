"""A user's own images: `folder --data-dir DIR`."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from tasks.base import DataError, TaskOptions
from tasks.images.file_options import SizedImageOptions
from tasks.images.file_task import FileImageTask
from tasks.images.layout.parts import find_classes, part_folders
from tasks.images.layout.tables import find_tables
from tasks.images.parquet import read_schema
from tasks.storage.user_files import reading

UNKNOWN = 2  # classes before a folder is given, so that a budget can be computed: it does not depend on their number


class OwnImages(FileImageTask):
    """Any image folder: train/, val/ and test/, some of them, or class folders only; or Parquet files named as on the
    hub.

    The classes are those of the training part, sorted by name. A single part val/ or test/ is the test split; missing
    splits are held out: 10 % of every class, first for the test, then for validation.
    """

    name = "folder"
    summary = "your own images: one folder per class, with or without train/, val/, test/; or Parquet (--data-dir DIR)"
    protocol = "folder/1"
    Options: ClassVar[type[TaskOptions]] = SizedImageOptions
    options: SizedImageOptions
    held_out = 0.1
    data_decides = frozenset({"classes"})
    needed = ()
    source = "a local folder"
    licence = "yours"
    how_to = (
        "--data-dir DIR: DIR/train/CLASS/, DIR/val/CLASS/, DIR/test/CLASS/, or DIR/CLASS/, with images in it or in "
        "its subfolders; DIR/val/ and DIR/test/ may hold the images directly, with DIR/val_labels.txt (lines FILE "
        "CLASS)",
        "or Parquet files with an image and a class column, as Hugging Face datasets writes them, named "
        "train-00000-of-00001.parquet; or a folder that its save_to_disk wrote",
    )

    @cached_property
    def _classes(self) -> int:
        assert self.data_dir is not None
        if not self.data_dir.is_dir():
            raise DataError(
                f"folder needs images: {self.data_dir} is not a folder. Pass --data-dir DIR with one folder per class"
            )
        files = find_tables(self.data_dir)
        if files:
            return len(read_schema(next(iter(files.values()))[0], self.label)[1])
        with reading(self.data_dir):
            return len(find_classes(self.data_dir, part_folders(self.data_dir, ())))

    @property
    def classes(self) -> int:
        return UNKNOWN if self.data_dir is None else self._classes

    def _layout(self) -> str:
        return "train/, val/ and test/, or with one folder per class"

    def _details(self) -> dict[str, Any]:
        return {} if self.data_dir is None else {"classes": self.classes}
