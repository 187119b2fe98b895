"""Where a run of several ranks keeps its checkpoints: a folder for each, named by its step.

It holds the tensors of all ranks (`shards`) and `content.pt`, sealed like the checkpoint of a single process:
everything else, and the sha256 of the other files.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from suite.training.parallel import shards

CONTENT = "content.pt"
_NAME, _PATTERN = "checkpoint-{:010d}.dcp", "checkpoint-*.dcp"


def of_step(run_dir: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run_dir / _NAME.format(step)


def found(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, the newest first."""
    return sorted((path for path in run_dir.glob(_PATTERN) if (path / CONTENT).is_file()), reverse=True)


def remove(run_dir: Path, kept: tuple[Path, ...] = ()) -> None:
    """Deletes a run's checkpoints of several ranks.

    Args:
        run_dir: the folder of the run.
        kept: those that stay.
    """
    for path in run_dir.glob(_PATTERN):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def joined(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as a single process writes it.

    Args:
        folder: of the checkpoint.
        content: what its `content.pt` holds.

    Returns:
        The content, with all tensors in their places. `random` is rank 0's, `random_of_ranks` every rank's.

    Raises:
        UserError: a file is damaged.
        OSError: a file is missing.
    """
    trees: dict[str, Any] = {"model": {}, "optimizer": {}, "ema": {}, "best": {}, "random": {}}
    for name, x in shards.read(folder, content["sha256"]).items():
        kind, _, key = name.partition("/")
        trees[kind][key] = x
    optimizer = {"state": _by_parameter(trees["optimizer"]), "param_groups": content["param_groups"]}
    every = [_generators(trees["random"], rank) for rank in range(content["world"])]
    return {
        **content,
        "model": trees["model"],
        "optimizer": optimizer,
        "ema": trees["ema"] or None,
        "best": {**content["best"], "weights": trees["best"]},
        "random": every[0],
        "random_of_ranks": every,
    }


def _by_parameter(flat: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, x in flat.items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = x
    return state


def _generators(flat: dict[str, Tensor], rank: int) -> dict[str, Any]:
    """A rank's generators, as `checkpoint.random_state` gives them."""
    state: dict[str, Any] = {"torch": flat[f"{rank}/torch"]}
    if f"{rank}/cuda" in flat:
        state["cuda"] = [flat[f"{rank}/cuda"]]
    return state
