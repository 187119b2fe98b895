"""One file of a data set on the Hugging Face hub: found by its name, downloaded once into the hub's own cache.

The hub's client locks (two processes download once), goes on with a download that broke off, shows its progress on
stderr, and takes the cached file where there is no network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

from tasks.base import DataError

RESERVE = 1.1  # free disk asked for, in units of the file
Kind = Literal["dataset", "model"]
NAME_IT: dict[Kind, str] = {"dataset": "pass --data-dir DIR", "model": "give its path instead"}


def fetch(repo: str, file: str, kind: Kind = "dataset") -> Path:
    """The local path of `file` (its usual path in the repository; only its name must match). Raises DataError in one
    line.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _one_line(repo, file, kind):
        try:
            return Path(_download(repo, file, kind))
        except LocalEntryNotFoundError:  # neither network nor cache: nothing to look for
            raise
        except EntryNotFoundError:
            return Path(_download(repo, _of_that_name(repo, file, kind), kind))


def ask(repo: str, file: str, kind: Kind = "dataset") -> None:
    """Asks for `file` without downloading it. Raises DataError, as `fetch` does, where the hub cannot be reached or
    lets nobody in.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _one_line(repo, file, kind):
        try:
            hf_hub_download(
                repo,
                file,
                repo_type=kind,
                endpoint=os.environ.get("HF_ENDPOINT"),
                local_files_only=_offline(),
                dry_run=True,
            )
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:  # `fetch` looks for it elsewhere in the repository
            return


def newest_commit(repo: str, what: str) -> str:
    """The commit that a data set is at, so that all of it is read from that one. Raises DataError, which names
    `what`.
    """
    from huggingface_hub import HfApi

    with _one_line(repo, what, "dataset"):
        if _offline():
            raise OSError("the client is told to stay offline (HF_DATASETS_OFFLINE)")
        return str(HfApi(endpoint=os.environ.get("HF_ENDPOINT")).dataset_info(repo).sha)


def cached(repo: str, file: str, kind: Kind = "dataset") -> Path | None:
    """The file where it has been downloaded before under its usual path; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, repo_type=kind)
    return Path(found) if isinstance(found, str) else None


def _download(repo: str, file: str, kind: Kind) -> str:
    """Downloads after a look at what it needs: a full disk is told before the download starts."""
    from huggingface_hub import hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT")
    if _offline():
        return str(hf_hub_download(repo, file, repo_type=kind, local_files_only=True))
    planned = hf_hub_download(repo, file, repo_type=kind, endpoint=endpoint, dry_run=True)
    if planned.will_download:
        folder = Path(planned.local_path)
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        size = planned.file_size or 0
        if free < RESERVE * size:
            raise OSError(f"it has {size / 1e6:,.0f} MB, {folder} has {free / 1e6:,.0f} MB left")
    return str(hf_hub_download(repo, file, repo_type=kind, endpoint=endpoint))


def _offline() -> bool:
    return os.environ.get("HF_DATASETS_OFFLINE", "").upper() in (
        "1",
        "ON",
        "YES",
        "TRUE",
    )  # the client knows HF_HUB_OFFLINE only


@contextmanager
def _one_line(repo: str, file: str, kind: Kind) -> Iterator[None]:
    """Turns what the hub's client raises into a DataError of one line."""
    from huggingface_hub.errors import HfHubHTTPError

    # the base class of the hub's own errors is that of whichever HTTP library its client uses
    expected: tuple[type[Exception], ...] = (
        OSError,
        ValueError,
        *(c for c in HfHubHTTPError.__bases__ if issubclass(c, Exception)),
    )
    try:
        yield
    except expected as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{file} could not be had from the hub's {repo}: {reason}; download it yourself and {NAME_IT[kind]}"
        ) from error


def _of_that_name(repo: str, file: str, kind: Kind) -> str:
    """The one path in the repository that ends in the file's name."""
    from huggingface_hub import HfApi

    name = PurePosixPath(file).name
    every = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).list_repo_files(repo, repo_type=kind)
    found = [path for path in every if PurePosixPath(path).name == name]
    if len(found) != 1:
        raise ValueError(
            f"it holds {len(found)} files of the name {name}" + (f" ({', '.join(found[:3])})" if found else "")
        )
    return found[0]
