"""Checkpoints: written atomically, read without executing anything, enough to resume bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from suite.errors import UserError, first_line
from tasks.storage.cache import write_atomically

FORMAT = 1
NAME = "checkpoint.pt"


def save(run_dir: Path, content: dict[str, Any]) -> None:
    """Writes the run's checkpoint, and deletes what a killed process left half written.

    Raises OSError or RuntimeError when the disk refuses; the old checkpoint is then unchanged.
    """
    for leftover in run_dir.glob(f".{NAME}.*"):
        leftover.unlink(missing_ok=True)
    write_atomically(run_dir / NAME, lambda path: torch.save({"format": FORMAT, **content}, path))


def load(run_dir: Path, device: torch.device) -> dict[str, Any]:
    """The run's last checkpoint. Raises UserError when there is none or it was not written by `save`."""
    path = run_dir / NAME
    if not path.is_file():
        raise UserError(f"{run_dir} has no {NAME}: the run stopped before its first one; start it again")
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read: {type(error).__name__}: {first_line(error)}; start the run again"
        ) from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has checkpoint format {found}, this version reads {FORMAT}; start the run again")
    return content


def random_state() -> dict[str, Any]:
    """The generators that training draws from (dropout and stochastic depth); the tasks' batches use none of them."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Sets the generators to what `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
