"""Writing a checkpoint of several ranks, and giving one to them: written by one process or by any number."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from suite.errors import reason
from suite.training import checkpoint
from suite.training.parallel import folders, shards
from suite.training.parallel.models import as_sharded
from suite.training.parallel.ranks import Ranks

T = TypeVar("T")


def save(run_dir: Path, content: dict[str, Any], tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Writes a checkpoint, keeps the one before it and the best one, and deletes the others. All ranks call it.

    Args:
        run_dir: the run's folder, which all ranks share.
        content: everything but tensors, equal on all ranks; `step`, and `best` with its `step`.
        tensors: this rank's, by `kind/name`; sharded, or equal on all ranks that have them.
        ranks: of the job.

    Raises:
        OSError: it could not be written; the old checkpoints are then unchanged. All ranks raise.
        RuntimeError: another rank was lost.
    """
    temporary = run_dir / f".checkpoint-{content['step']}.dcp"
    # nobody writes before the leftovers are gone
    _together(ranks, lambda: checkpoint.delete_leftovers(run_dir) if ranks.leads else None)
    try:
        written = _together(ranks, lambda: shards.write(temporary, tensors, ranks.rank))
        sha256 = {name: value for each in written for name, value in each.items()}
        whole = {**content, "world": ranks.world, "sha256": sha256}
        _together(ranks, lambda: _complete(run_dir, temporary, whole) if ranks.leads else None)
    except (OSError, RuntimeError):
        if ranks.leads:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _together(ranks: Ranks, part: Callable[[], T]) -> list[T]:
    """What each rank's part gives. A part that fails on one rank alone fails on all: one that continued would meet the
    others in another exchange.
    """
    found: list[T] = []
    problem = ""
    try:
        found.append(part())
    except (OSError, RuntimeError) as error:
        problem = reason(error)
    every = ranks.gather((found, problem))
    for _, why in every:
        if why:
            raise OSError(why)
    return [each for some, _ in every for each in some]


def _complete(run_dir: Path, temporary: Path, content: dict[str, Any]) -> None:
    """Gives a written checkpoint its name, in one step, and deletes those that it replaces."""
    checkpoint.write(temporary / folders.CONTENT, content)
    place = folders.of_step(run_dir, content["step"])
    shutil.rmtree(place, ignore_errors=True)  # of the same step, before the run was resumed there
    os.replace(temporary, place)
    before = [path for path in folders.found(run_dir) if path < place][: checkpoint.KEPT - 1]
    folders.remove(run_dir, kept=(place, *before, folders.of_step(run_dir, content["best"]["step"])))
    for path in checkpoint.files_of_one_process(run_dir):
        path.unlink(missing_ok=True)


def tensors_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, ema: nn.Module | None, best: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of a rank's training state, by `kind/name`, without those of its generators."""
    named = {"model": model.state_dict(), "ema": ema.state_dict() if ema else {}, "best": best}
    flat = {f"{kind}/{name}": x for kind, each in named.items() for name, x in each.items()}
    for number, state in optimizer.state_dict()["state"].items():
        flat |= {f"optimizer/{number}/{key}": x for key, x in state.items()}
    return flat


def generators(rank: int, device: torch.device) -> dict[str, Tensor]:
    """What this rank's dropout and stochastic depth are drawn from."""
    state = {f"random/{rank}/torch": torch.get_rng_state()}
    if device.type == "cuda":
        state[f"random/{rank}/cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_generators(state: dict[str, Any], ranks: Ranks, device: torch.device) -> bool:
    """Continues this rank's generators.

    Args:
        state: a checkpoint's content, of one process or several.
        ranks: of the job.
        device: of this rank.

    Returns:
        False where the checkpoint has none for this rank, because fewer processes wrote it.
    """
    every = state.get("random_of_ranks", [state["random"]])
    if ranks.rank >= len(every):
        return False
    own = every[ranks.rank]
    torch.set_rng_state(own["torch"].cpu())
    if device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"][0].cpu(), device)
    return True


def restore_model(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads whole tensors into a model that may be sharded. All ranks call it, with the same."""
    model.load_state_dict(laid_out(model, weights))


def laid_out(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors in the layout of a model's own."""
    own = model.state_dict()
    return {name: as_sharded(x, own[name]) if name in own else x for name, x in weights.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Loads the whole state of an optimizer into one whose parameters may be sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {key: as_sharded(x, parameters[number]) for key, x in each.items()}
        for number, each in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})
