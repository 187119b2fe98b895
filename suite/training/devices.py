"""The device that a run computes on."""

from __future__ import annotations

import torch

from suite.errors import UserError, did_you_mean


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` chooses a CUDA GPU where there is one, otherwise the CPU. Raises UserError for a
    device that cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it stores no values")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        allowed = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        near = did_you_mean(name, ("auto", "cpu", "cuda", *allowed)) if name.partition(":")[0] != "cuda" else ""
        raise UserError(
            f"device {name!r} cannot be used ({reason}){near}; allowed here: {', '.join(allowed)}"
        ) from None
    return device
