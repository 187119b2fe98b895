"""Runs checks of the mixer contract on layers of `fla` without a GPU, in Triton's interpreter: slow, small inputs.

    TRITON_INTERPRET=1 python -m tests.backbones.fla_interpreted fla/gla rows,step

The interpreter of Triton 3.8 needs help with fla 0.6 in two places: autotuning needs a driver for its timings, so the
first configuration is used; and Python's `range` over a number of a kernel yields integers, on which the kernels then
call methods of tensors.
"""

from __future__ import annotations

import builtins
import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime.autotuner import Autotuner
from triton.runtime.interpreter import TensorHandle

from backbones.contract.run import as_json, run_checks
from backbones.mixers.fla import mixer


def take_first_configuration() -> None:
    make = Autotuner.__init__

    def made(self: Any, fn: Any, arg_names: Any, configs: Any, *more: Any, **named: Any) -> None:
        make(self, fn, arg_names, configs[:1], *more, **named)

    Autotuner.__init__ = made


def tensor_range(*bounds: Any) -> Iterator[Any]:
    """`range`, which yields tensors where a bound is a tensor, as the loop variable of a compiled kernel is one."""
    numbers = builtins.range(*(int(b) for b in bounds))
    if not any(isinstance(b, tl.tensor) for b in bounds):
        yield from numbers
        return
    for number in numbers:
        yield tl.tensor(TensorHandle(np.array([number], dtype=np.int32), tl.int32), tl.int32)


def main(name: str, checks: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    take_first_configuration()
    importlib.import_module("fla.layers")
    for imported, module in list(sys.modules.items()):
        if imported.startswith(("fla.ops.", "fla.modules.")):
            module.range = tensor_range  # type: ignore[attr-defined]
    mixer.runs_kernels = lambda device: True
    print(json.dumps(as_json(name, run_checks(name, only=checks))))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","))
