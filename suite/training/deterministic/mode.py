"""The mode of `--deterministic`: the same command on the same machine gives the same bits.

PyTorch then takes deterministic algorithms, and refuses an operation that has none on the device. It is a setting of
the process, and how a run is executed: it is no part of a run's identity, and its record reports it.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from suite.errors import UserError
from suite.records import runs_folder

#: cuBLAS sums in one order if it has workspaces of fixed sizes. Read once, when PyTorch first multiplies on a GPU.
_WORKSPACES = (":4096:8", ":16:8")
_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")
_CUBLAS_REFUSED = "not deterministic because it uses CuBLAS"


def active() -> bool:
    """Whether this process computes with deterministic algorithms alone."""
    return torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()


@contextmanager
def using(on: bool) -> Iterator[None]:
    """Within the block runs are deterministic, if `on`.

    Args:
        on: False leaves everything as it is.

    Yields:
        Nothing.

    Raises:
        UserError: cuBLAS has begun, or was configured, without fixed workspaces.
    """
    if not on:
        yield
        return
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn, workspace = torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    _require_workspace(workspace)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACES[0])
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # which chooses algorithms by timing them
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = cudnn
        if workspace is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]


@contextmanager
def as_begun(folder: Path) -> Iterator[None]:
    """Within the block a stopped run continues in the mode that it began in.

    Args:
        folder: of the run.

    Yields:
        Nothing.

    Raises:
        UserError: this process is deterministic, and the run did not begin so.
    """
    began = runs_folder.began_deterministic(folder)
    if active() and not began:
        raise UserError(
            f"run {folder.name} began without --deterministic, so its first steps may not repeat; resume it without, "
            "or start the run again with --deterministic"
        )
    with using(began):
        yield


def seed_generators(seed: int) -> None:
    """Seeds PyTorch's generators, and in this mode those of Python and NumPy, which a third party's code may use.

    Args:
        seed: of the run.
    """
    torch.manual_seed(seed)
    if active():
        random.seed(seed)
        np.random.seed(seed)


def refused_operation(problem: BaseException, device: torch.device) -> str:
    """The line for an operation that PyTorch refused because it has no deterministic algorithm.

    Args:
        problem: what the run raised.
        device: that it computed on.

    Returns:
        One line; empty for any other problem.
    """
    text = str(problem)
    found = _REFUSED.search(text)
    if not active() or not (found or _CUBLAS_REFUSED in text):
        return ""
    name = found[1] if found else "a matrix product of cuBLAS"
    return (
        f"{name} has no deterministic algorithm on {device.type}; leave out --deterministic, or replace the operation "
        "(docs/determinism.md)"
    )


def _require_workspace(configured: str | None) -> None:
    if not torch.cuda.is_available() or configured in _WORKSPACES:
        return
    if configured is not None:
        raise UserError(
            f"CUBLAS_WORKSPACE_CONFIG is {configured!r}; --deterministic needs {' or '.join(_WORKSPACES)}; unset it "
            "or change it"
        )
    if torch.cuda.is_initialized():
        raise UserError(
            f"this process used the GPU before --deterministic; start it with CUBLAS_WORKSPACE_CONFIG={_WORKSPACES[0]}"
        )
