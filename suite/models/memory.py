"""The least memory that training a model takes, estimated before anything is built."""

from __future__ import annotations

import psutil
import torch

from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.models.certificate import Certificate

BYTES_PER_PARAMETER = 16  # fp32: the weights, their gradient, and the two moments of AdamW
BYTES_OF_WEIGHT = 4
#: What lowers it, for the messages of both a refusal and of a run that has none left.
ADVICE = "lower model.dim, model.depth, train.batch_size or the length (--set train.batch_size=…)"
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "cannot allocate memory")


def require_memory(
    config: RunConfig,
    certificate: Certificate,
    device: torch.device,
    *,
    processes: int = 1,
    here: int = 1,
    sharded: bool = False,
) -> None:
    """Refuses a model that cannot be trained in the memory of the machine or of the GPU.

    Args:
        config: the run.
        certificate: its counts.
        device: where it would train.
        processes: that train it together.
        here: those on this machine, which share its memory; each has a GPU of its own.
        sharded: whether each holds a part of the weights, gradients and moments.

    Raises:
        UserError: weights, gradients and moments, and one activation per layer, already take more than there is.
    """
    count, rows = certificate.total_parameters, config.train.batch_size // processes
    # each process of a sharded model holds all weights while it validates and tests
    weights = BYTES_PER_PARAMETER * count // (processes if sharded else 1) + (BYTES_OF_WEIGHT * count if sharded else 0)
    activations = 4 * rows * certificate.length * certificate.dim * max(certificate.depth, 1)
    sharing = 1 if device.type == "cuda" else here
    there = _total(device)
    if (weights + activations) * sharing > there:
        each = f", for each of {here} processes" if here > 1 else ""
        raise UserError(
            f"this run takes at least {_size(weights)} for {count:,} parameters and {_size(activations)} for the "
            f"activations of a batch{each}; {device.type} has {_size(there)}: {ADVICE}"
        )


def out_of_memory(error: BaseException) -> str:
    """What to do about an error of memory.

    Args:
        error: any exception.

    Returns:
        One line; an empty string where the error is another one.
    """
    text = str(error).lower()
    ours = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if ours or (isinstance(error, RuntimeError) and any(phrase in text for phrase in _PHRASES)):
        return f"out of memory: {ADVICE}"
    return ""


def _total(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total + psutil.swap_memory().total


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
