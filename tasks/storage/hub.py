"""One file of a repository on the Hugging Face hub: found by its name, downloaded once into the hub's own cache.

The hub's client holds a lock (two processes download once), resumes an interrupted download, shows its progress on
stderr, and uses the cached file if there is no network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path, PurePosixPath
from typing import Literal

from tasks.base import DataError
from tasks.storage import verified
from tasks.storage.user_files import reading

RESERVE = 1.1  # free disk space required, relative to the size of the file
GIT_OR_SHA256 = (40, 64)  # digits of the hash by which the hub's client names a stored file
Kind = Literal["dataset", "model"]
PASS_IT: dict[Kind, str] = {"dataset": "pass --data-dir DIR", "model": "pass its path: --set tokenizer=PATH"}


def fetch(repo: str, file: str, kind: Kind = "dataset") -> Path:
    """The local path of `file` (its usual path in the repository; only its name must match). Raises DataError."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _one_line(repo, file, kind):
        try:
            return verify(Path(_download(repo, file, kind)))
        except LocalEntryNotFoundError:  # neither network nor cache: nowhere to search
            raise
        except EntryNotFoundError:
            return verify(Path(_download(repo, _find_by_name(repo, file, kind), kind)))


def verify(path: Path) -> Path:
    """The path of a downloaded file, if its content is that of its name in the hub's cache.

    The client stores a file under the hash that the hub gives: the sha256 of large files, the git hash of small ones.
    A file that is not stored that way has no known hash.

    Raises:
        DataError: The file has changed since it was downloaded.
    """
    stored = path.resolve()
    known = len(stored.name) in GIT_OR_SHA256 and not set(stored.name) - set("0123456789abcdef")
    if known and stored.parent.name == "blobs":
        found = verified.digest_once([stored], lambda: _hash_as_hub(stored), stored.name)
        if found != stored.name:
            raise DataError(f"{path} is not the file that was downloaded; delete {stored} to download it again")
    return path


def _hash_as_hub(file: Path) -> str:
    """The hash of a file that is as long as its name: sha256, or that of git."""
    if len(file.name) == max(GIT_OR_SHA256):
        return verified.file_hash(file)
    with reading(file):
        content = file.read_bytes()
    return sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def check_access(repo: str, file: str, kind: Kind = "dataset") -> None:
    """Requests `file` without downloading it. Raises DataError, as `fetch` does, if the hub cannot be reached or denies
    access.
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
        except EntryNotFoundError:  # `fetch` searches the rest of the repository
            return


def newest_commit(repo: str, what: str) -> str:
    """The newest commit of a data set, so that all of it can be read at that commit. Raises DataError about `what`."""
    from huggingface_hub import HfApi

    with _one_line(repo, what, "dataset"):
        if _offline():
            raise OSError("the client is offline (HF_DATASETS_OFFLINE is set)")
        return str(HfApi(endpoint=os.environ.get("HF_ENDPOINT")).dataset_info(repo).sha)


def cached(repo: str, file: str, kind: Kind = "dataset") -> Path | None:
    """The file if it has been downloaded before from its usual path; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, repo_type=kind)
    return Path(found) if isinstance(found, str) else None


def _download(repo: str, file: str, kind: Kind) -> str:
    """Downloads a file after checking that the disk has space for it."""
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
            raise OSError(f"it needs {size / 1e6:,.0f} MB, {folder} has {free / 1e6:,.0f} MB free")
    return str(hf_hub_download(repo, file, repo_type=kind, endpoint=endpoint))


def _offline() -> bool:
    """Whether HF_DATASETS_OFFLINE is set; the client itself reads only HF_HUB_OFFLINE."""
    return os.environ.get("HF_DATASETS_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@contextmanager
def _one_line(repo: str, file: str, kind: Kind) -> Iterator[None]:
    """Reports the errors of the hub's client as a DataError of one line."""
    from huggingface_hub.errors import HfHubHTTPError

    # the hub's own errors derive from those of the HTTP library that its client uses
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
            f"{file} could not be downloaded from the hub's {repo}: {reason}; download it yourself and {PASS_IT[kind]}"
        ) from error


def _find_by_name(repo: str, file: str, kind: Kind) -> str:
    """The only path in the repository that ends in the file's name."""
    from huggingface_hub import HfApi

    name = PurePosixPath(file).name
    every = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).list_repo_files(repo, repo_type=kind)
    found = [path for path in every if PurePosixPath(path).name == name]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} files named {name}" + (f" ({', '.join(found[:3])})" if found else ""))
    return found[0]
