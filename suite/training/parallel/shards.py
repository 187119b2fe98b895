"""Tensors of a checkpoint in files of several ranks, in the format of torch.distributed.checkpoint.

A folder has one file per rank and an index, `.metadata`. Each has its sha256 in the checkpoint's own sealed file. The
index is a pickle, of which only the classes that describe tensors are read; nothing else is pickled.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.errors import UserError
from suite.safe_text import quoted

INDEX = ".metadata"
#: All that an index names.
_INDEX = {
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex"),
        *("StorageMeta", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
}
_PATHS = ("PosixPath", "WindowsPath")


def write(folder: Path, tensors: dict[str, Tensor], rank: int) -> dict[str, str]:
    """Writes this rank's tensors. All ranks call it; those that several have are written by one of them.

    Args:
        folder: on a file system that all ranks share; it may be missing.
        tensors: by name: whole ones that are equal on all ranks that have them, and DTensors.
        rank: of this process.

    Returns:
        The sha256 of each file of this rank, and at rank 0 of the index.

    Raises:
        OSError, RuntimeError: a rank could not write. All ranks raise.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save(dict(tensors), storage_writer=FileSystemWriter(folder, single_file_per_rank=True))
    except CheckpointException as problem:
        raise _cause(problem) from None
    own = [*folder.glob(f"__{rank}_*"), *([folder / INDEX] if rank == 0 else [])]
    return {path.name: digest(path) for path in own}


def _cause(problem: BaseException) -> Exception:
    """What a rank raised, of which PyTorch reports the ranks and their tracebacks."""
    for failure in getattr(problem, "failures", {}).values():
        cause = failure[0] if isinstance(failure, tuple) else failure
        if isinstance(cause, OSError):
            return cause
    return RuntimeError(str(problem).strip().splitlines()[-1] if str(problem).strip() else "a rank could not write")


def read(folder: Path, sha256: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of all ranks, whole, on the CPU. No other process is needed.

    Args:
        folder: what the ranks wrote to.
        sha256: of every file of theirs.

    Returns:
        The tensors by name.

    Raises:
        UserError: a file is damaged, or holds something else than tensors.
        OSError: a file is missing.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta, TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    for name, expected in sha256.items():
        if Path(name).name != name or digest(folder / name) != expected:
            raise UserError(f"{folder / name} is damaged: its sha256 is not the one it was written with")

    class Reader(FileSystemReader):
        """Reads the index without executing anything."""

        def read_metadata(self, *_: Any, **__: Any) -> Any:
            metadata = _Restricted(io.BytesIO((folder / INDEX).read_bytes())).load()
            metadata.storage_meta = StorageMeta(load_id=self.load_id)
            return metadata

    reader = Reader(folder)
    described = reader.read_metadata().state_dict_metadata
    tensors = dict[str, Tensor]()
    for name, each in described.items():
        if not isinstance(each, TensorStorageMetadata):
            raise UserError(f"{folder} is damaged: {name!r} is no tensor")
        tensors[name] = torch.empty(each.size, dtype=each.properties.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is one process, which is meant
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


class _Restricted(pickle.Unpickler):
    """Finds only what an index is made of. Raises UserError for anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, or a type of numbers, where an index may name it."""
        of_torch = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if of_torch or name in _INDEX.get(module, ()) or (module.startswith("pathlib") and name in _PATHS):
            return super().find_class(module, name)
        raise UserError(f"the checkpoint's {INDEX} is damaged: it names {quoted(f'{module}.{name}')}")
