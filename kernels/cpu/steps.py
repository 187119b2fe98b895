"""Steps of decoding that write the state in place, compiled: which calls they take, and their wrappers.

A step is a few microseconds of work, so a call must cost little: the callers state the shapes, and nothing is parsed.
Nothing is differentiated here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kernels.cpu import call
from kernels.cpu.call import NAMES, WORK_PER_THREAD


def steps_with(state: Sequence[Tensor], *tensors: Tensor | None) -> bool:
    """Whether a compiled step takes these tensors, which are then checked for all but their shapes.

    Args:
        state: what the step writes: contiguous.
        tensors: what it reads; None for what there is not.

    Returns:
        True for ordinary CPU tensors of one dtype, fp32 or fp64, none of them empty or watched by autograd, while
        operations are neither traced nor counted.
    """
    given = [*state, *(x for x in tensors if x is not None)]
    dtype, watched = given[0].dtype, torch.is_grad_enabled()
    if dtype not in NAMES or call.watched_or_refused():
        return False
    for x in given:
        if x.dtype is not dtype or not call.is_plain(x) or (watched and x.requires_grad):
            return False
    return all(x.is_contiguous() for x in state) and call.library() is not None


@cache
def _function(library: ctypes.CDLL, name: str, pointers: int, numbers: int, sizes: int) -> Any:
    found = library[name]
    found.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_double] * numbers + [ctypes.c_long] * sizes
    found.restype = ctypes.c_long
    return found


def run(
    name: str, state: Sequence[Tensor], tensors: Sequence[Tensor | None], numbers: Sequence[float], sizes: list[int]
) -> int:
    """Calls a compiled step.

    Args:
        name: of the C++ function, without its dtype.
        state: the tensors that it writes in place; autograd learns that they have changed.
        tensors: its other pointers, after those of the state.
        numbers: its floating-point arguments.
        sizes: its integer arguments; the number of threads follows.

    Returns:
        What the function returns, where it returns something.
    """
    library = call.library()
    assert library is not None
    work = sum(x.numel() for x in state)
    threads = torch.get_num_threads() if work >= 2 * WORK_PER_THREAD else 1
    function = _function(
        library, f"{name}_{NAMES[state[0].dtype]}", len(state) + len(tensors), len(numbers), len(sizes) + 1
    )
    pointers = [None if x is None else x.data_ptr() for x in (*state, *tensors)]
    found: int = function(*pointers, *numbers, *sizes, threads)
    for x in state:
        if not x.is_inference():  # those have no count of their changes
            torch.autograd.graph.increment_version(x)
    return found


def memory_step(
    memory_BHkw: Tensor, q_BHk: Tensor, k_BHk: Tensor, v_BHw: Tensor, log_decay_BHc: Tensor | None, beta_BH: Tensor | None
) -> Tensor | None:
    """One token of a linear memory, which is written in place.

    Args:
        memory_BHkw: S before the token `[B, H, k, w]`.
        q_BHk: `[B, H, k]`, as the other inputs in any layout.
        k_BHk: `[B, H, k]`.
        v_BHw: `[B, H, w]`.
        log_decay_BHc: `[B, H, 1]` or `[B, H, k]`; None for no decay.
        beta_BH: β of the delta rule `[B, H]`; None where the values enter as they are.

    Returns:
        o `[B, H, w]`; None where the compiled library does not take the call, and nothing has changed.
    """
    if not steps_with((memory_BHkw,), q_BHk, k_BHk, v_BHw, log_decay_BHc, beta_BH):
        return None
    B, H, k, w = memory_BHkw.shape
    decays = 0 if log_decay_BHc is None else log_decay_BHc.shape[-1]
    keyed, agree = (B, H, k), decays in (0, 1, k)
    agree = agree and q_BHk.shape == keyed and k_BHk.shape == keyed and v_BHw.shape == (B, H, w)
    agree = agree and (log_decay_BHc is None or log_decay_BHc.shape == (B, H, decays))
    if not agree or (beta_BH is not None and beta_BH.shape != (B, H)):
        return None
    q_BHk, k_BHk, v_BHw = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_BHk, k_BHk, v_BHw))
    if log_decay_BHc is not None and log_decay_BHc.stride(-1) != 1:
        log_decay_BHc = log_decay_BHc.contiguous()
    beta_BH = None if beta_BH is None else beta_BH.contiguous()
    o_BHw = torch.empty((B, H, w), dtype=memory_BHkw.dtype)
    strides = [*q_BHk.stride()[:2], *k_BHk.stride()[:2], *v_BHw.stride()[:2]]
    strides += (0, 0) if log_decay_BHc is None else log_decay_BHc.stride()[:2]
    run("memory_step", [memory_BHkw], [q_BHk, k_BHk, v_BHw, log_decay_BHc, beta_BH, o_BHw], [], [B, H, k, w, decays, *strides])
    return o_BHw


def convolution_step(h_BR: Tensor, x_BD: Tensor, weight_3RD: Tensor, eps: Sequence[float]) -> Tensor | None:
    """One token of FEM's low-rank convolution; its state is written in place.

    Args:
        h_BR: the state `[B, R]`.
        x_BD: the layer's input `[B, D]`.
        weight_3RD: the maps to decay, input and scale `[3R, D]`.
        eps: of the norm of x, of the norm of h and of the scale's RMS.

    Returns:
        The factors `[B, R]`; None where the compiled library does not take the call.
    """
    (B, R), D = h_BR.shape, x_BD.shape[-1]
    if not steps_with((h_BR,), x_BD, weight_3RD) or x_BD.shape != (B, D) or weight_3RD.shape != (3 * R, D):
        return None
    s_BR = torch.empty_like(h_BR)
    run("convolution_step", [h_BR], [x_BD.contiguous(), weight_3RD.contiguous(), s_BR], eps, [B, D, R])
    return s_BR
