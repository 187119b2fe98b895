"""Steps of decoding that write the state in place, compiled: which calls they take, and their wrappers.

A step is a few microseconds of work, so a call must cost little: the callers state the shapes, and nothing is parsed.
Nothing is differentiated here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

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


@dataclass(frozen=True)
class Around:
    """What a layer does to q and k before the token enters, and to o after it.

    Attributes:
        unit: q and k are divided by `sqrt(‖·‖² + unit)`; 0 leaves them as they are.
        scale: of q.
        turn: cosines and sines `[k/2]` of the angles by which pairs of channels of q and k turn; None for no rotation.
        gate_BE: logits of the gate, with any distance between sequences; None for no gate.
        gain: of the norm, `[w]` or, by head, `[E]`; None for none.
        normaliser: whether S has one value channel more, for ones: o is divided by max(|that channel|, 1). Not with β.
        norm: "layer", "rms" or "" for none, over the channels of a head.
        gated: by "silu" or "sigmoid", or "" for no gate.
        eps: of the norm.
    """

    unit: float = 0.0
    scale: float = 1.0
    turn: tuple[Tensor, Tensor] | None = None
    gate_BE: Tensor | None = None
    gain: Tensor | None = None
    normaliser: bool = False
    norm: Literal["", "layer", "rms"] = ""
    gated: Literal["", "silu", "sigmoid"] = ""
    eps: float = 0.0

    def tensors(self) -> list[Tensor | None]:
        """As the compiled function takes them."""
        return [*(self.turn or (None, None)), self.gain, self.gate_BE]

    def agrees(self, B: int, H: int, k: int, w: int) -> bool:
        """Whether its tensors are those of such a layer; w as in o, without the normaliser."""
        if self.turn is not None and any(x.shape != (k // 2,) or k % 2 or not x.is_contiguous() for x in self.turn):
            return False
        gate = self.gate_BE.shape == (B, H * w) and self.gate_BE.stride(-1) == 1 if self.gate_BE is not None else True
        return gate and (self.gate_BE is not None) == bool(self.gated) and self._gain_agrees(H, w)

    def _gain_agrees(self, H: int, w: int) -> bool:
        return self.gain is None or (self.gain.shape in ((w,), (H * w,)) and self.gain.is_contiguous())

    def sizes(self, w: int) -> list[int]:
        """As the compiled function takes them."""
        by_head = 0 if self.gain is None or self.gain.numel() == w else w
        gate = (0, 0) if self.gate_BE is None else (self.gate_BE.stride(0), w)
        kinds = int(self.normaliser), ("", "layer", "rms").index(self.norm), ("", "silu", "sigmoid").index(self.gated)
        return [by_head, *gate, *kinds]


PLAIN = Around()


def memory_step(
    memory_BHkw: Tensor,
    q_BHk: Tensor,
    k_BHk: Tensor,
    v_BHw: Tensor,
    log_decay_BHc: Tensor | None,
    beta_BH: Tensor | None,
    around: Around = PLAIN,
) -> Tensor | None:
    """One token of a linear memory, which is written in place.

    Args:
        memory_BHkw: S before the token `[B, H, k, w]`.
        q_BHk: `[B, H, k]`, as the other inputs in any layout.
        k_BHk: `[B, H, k]`.
        v_BHw: `[B, H, w]`, of w − 1 channels with a normaliser.
        log_decay_BHc: `[B, H, 1]` or `[B, H, k]`; None for no decay.
        beta_BH: β of the delta rule `[B, H]`; None where the values enter as they are.
        around: what is done to q, k and o.

    Returns:
        o `[B, H, w]`, of w − 1 channels with a normaliser; None where the compiled library does not take the call, and
        nothing has changed.
    """
    inputs = (q_BHk, k_BHk, v_BHw, log_decay_BHc)
    if not steps_with((memory_BHkw,), *inputs, beta_BH, *around.tensors()):
        return None
    B, H, k, w = memory_BHkw.shape
    wide, decays = w - around.normaliser, 0 if log_decay_BHc is None else log_decay_BHc.shape[-1]
    shapes = ((B, H, k), (B, H, k), (B, H, wide), (B, H, decays))
    agree = all(x is None or x.shape == shape for x, shape in zip(inputs, shapes, strict=True)) and decays in (0, 1, k)
    if not agree or not around.agrees(B, H, k, wide) or (
        beta_BH is not None and (around.normaliser or beta_BH.shape != (B, H))
    ):
        return None
    rows = [x if x is None or x.stride(-1) == 1 else x.contiguous() for x in inputs]
    beta_BH = None if beta_BH is None else beta_BH.contiguous()
    o_BHw = torch.empty((B, H, wide), dtype=memory_BHkw.dtype)
    strides = [stride for x in rows for stride in ((0, 0) if x is None else x.stride()[:2])]
    sizes = [B, H, k, w, decays, *strides, *around.sizes(wide)]
    tensors = [*rows, beta_BH, *around.tensors(), o_BHw]
    run("memory_step", [memory_BHkw], tensors, [around.unit, around.scale, around.eps], sizes)
    return o_BHw


def silu_convolution_step(
    past_BJc: Tensor, x_Bc: Tensor, taps_Jc: Tensor, bias_c: Tensor | None
) -> Tensor | None:
    """One token of a short convolution and SiLU; the last inputs are written in place.

    Args:
        past_BJc: the last J − 1 inputs `[B, J − 1, c]`, the newest first.
        x_Bc: the token's input `[B, c]`, with any distance between sequences.
        taps_Jc: weights `[J, c]`, that of the token itself first.
        bias_c: added before SiLU `[c]`; None for none.

    Returns:
        `[B, c]`; None where the compiled library does not take the call, and nothing has changed.
    """
    B, past, c = past_BJc.shape
    if not steps_with((past_BJc,), x_Bc, taps_Jc, bias_c) or x_Bc.shape != (B, c) or x_Bc.stride(-1) != 1:
        return None
    if taps_Jc.shape != (past + 1, c) or (bias_c is not None and bias_c.shape != (c,)):
        return None
    y_Bc = torch.empty((B, c), dtype=x_Bc.dtype)
    tensors = [x_Bc, taps_Jc.contiguous(), bias_c if bias_c is None else bias_c.contiguous(), y_Bc]
    run("silu_convolution_step", [past_BJc], tensors, [], [B, past + 1, c, x_Bc.stride(0)])
    return y_Bc


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
