"""A model on several ranks: a copy on each (DDP), or a part of every tensor (FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from backbones.baselines.series import ClosedForm
from suite.errors import UserError
from suite.models.inputs import Backbone
from suite.training.parallel.ranks import Ranks


def require_supported(model: nn.Module, ranks: Ranks) -> None:
    """Refuses a model that several processes cannot train together.

    Args:
        model: of the run.
        ranks: of the job.

    Raises:
        UserError: it has several processes, and the model is fitted in one pass instead of steps, or has a parameter
            without axes, which cannot be sharded.
    """
    scalars = [name for name, parameter in model.named_parameters() if not parameter.dim()]
    if ranks.world > 1 and ranks.strategy == "fsdp2" and scalars:
        raise UserError(
            f"parameter {scalars[0]} has no axes, and --parallel fsdp gives each process a part of the first one; give "
            "it the shape [1], or take --parallel ddp"
        )
    if ranks.world > 1 and isinstance(model, ClosedForm):
        raise UserError(
            f"this baseline is fitted in one pass over the data, not in steps that {ranks.world} processes share; "
            "run it in one process (without --devices)"
        )


def shard(model: nn.Module) -> None:
    """Shards a model over all ranks by FSDP2, in place: each block is gathered while it computes, and the rest once.

    Args:
        model: equal on all ranks.
    """
    from torch.distributed.fsdp import fully_shard

    # of a forecaster's output, which no task changes in place
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    if isinstance(model, Backbone):
        for block in model.trunk.blocks:
            fully_shard(block)
    fully_shard(model)
    for module in _sharded(model):
        if next(model.parameters()).device.type == "cpu":
            module.set_force_sum_reduction_for_comms(True)  # gloo has sums only


def replicate(model: nn.Module, ranks: Ranks) -> nn.Module:
    """What a DDP rank calls in place of its model, so that gradients are averaged over the ranks.

    Args:
        model: equal on all ranks.
        ranks: of the job.

    Returns:
        The wrapper. Buffers are not broadcast, since batch norm statistics are computed over all ranks.
    """
    from torch.nn.parallel import DistributedDataParallel

    device = next(model.parameters()).device
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # 2.9 has no other name
        return DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=True,  # a mixer may use some only in certain layers
            gradient_as_bucket_view=True,
        )


def synchronising(model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
    """Within the block, a backward pass averages gradients over the ranks only if that is wanted.

    Args:
        model: what `replicate` returned, or a sharded model.
        wanted: False for all parts of a batch but the last.

    Returns:
        The context, for forward and backward.
    """
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(model, DistributedDataParallel):
        return nullcontext() if wanted else model.no_sync()
    model.set_requires_gradient_sync(wanted)  # type: ignore[operator]
    return nullcontext()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within the block a sharded model is whole on every rank and its forward pass communicates nothing, so that the
    ranks may evaluate different numbers of batches. Other models stay as they are.

    Args:
        model: sharded or not.

    Yields:
        Nothing.
    """
    modules = _sharded(model)
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def _sharded(model: nn.Module) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def whole(x: Tensor) -> Tensor:
    """A tensor with all its values; of a sharded one, gathered from all ranks, which all call it."""
    from torch.distributed.tensor import DTensor

    return x.full_tensor() if isinstance(x, DTensor) else x


def own_part(x: Tensor) -> Tensor:
    """The values of a tensor that this rank holds: a part of a sharded one, all of any other."""
    from torch.distributed.tensor import DTensor

    return x.to_local() if isinstance(x, DTensor) else x


def as_sharded(x: Any, like: Tensor) -> Any:
    """A value in the layout of a parameter.

    Args:
        x: a whole tensor, equal on all ranks, or a value of another type.
        like: a parameter, sharded or not.

    Returns:
        This rank's part of it where the parameter is sharded and has the same shape, otherwise `x`.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not (isinstance(like, DTensor) and isinstance(x, Tensor) and x.shape == like.shape):
        return x
    return distribute_tensor(x.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_numbers(x: Tensor) -> float:
    """A scalar that may be sharded, as a number."""
    return float(whole(x).item())


def seed_noise(seed: int, rank: int, step: int = 0) -> None:
    """Seeds what dropout and stochastic depth draw from, once the initial weights are drawn. Rank 0 continues the
    stream of a single process; every other rank has its own, so that no two ranks drop the same values.

    Args:
        seed: of the run.
        rank: of this process.
        step: at which a rank joins that the run did not have before.
    """
    if rank:
        import numpy as np

        torch.manual_seed(
            int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        )
