"""The diagonal scan `h_t = a_t h_{t−1} + x_t`, `h_{−1} = 0`, along the tokens.

Stable for any decay with |a| ≤ 1, zero included: only products of decays are formed, never a quotient or a logarithm.
h_t is computed from tokens ≤ t alone (≥ t when `reverse`).

In PyTorch it is an even/odd recursion: pairs of steps are merged into one, the scan of half the length is solved, and
the steps between are filled in; short scans are a loop. Tokens come first in memory meanwhile, so each operation
streams whole rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cpu import scans as cpu
from kernels.cpu.call import takes
from kernels.implementations import attempt, triton_module
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.opaque import opaque

LOOP = 16  # tokens up to which a loop is cheaper than one more level of recursion


def diagonal_scan(a_BTR: Tensor, x_BTR: Tensor, reverse: bool = False) -> Tensor:
    """Scans every channel on its own.

    Args:
        a_BTR: decays `[B, T, R]`, |a| ≤ 1; fp32 or fp64.
        x_BTR: inputs `[B, T, R]`, of the dtype of the decays.
        reverse: from the last token to the first.

    Returns:
        h `[B, T, R]`.
    """
    return _scan_opaquely([a_BTR, x_BTR], [int(reverse)])[0]


def _diagonal_scan(a_BTR: Tensor, x_BTR: Tensor, reverse: bool) -> Tensor:
    on_gpu = triton_module("scan", x_BTR, a_BTR, x_BTR, reverse)
    if on_gpu is not None:
        return attempt(
            "scan", lambda: on_gpu.diagonal_scan(a_BTR, x_BTR, reverse), lambda: _by_pytorch(a_BTR, x_BTR, reverse)
        )
    if takes("BTR BTR", a_BTR, x_BTR):
        out: Tensor = cpu.DiagonalScan.apply(a_BTR, x_BTR, reverse)
        return out
    return _by_pytorch(a_BTR, x_BTR, reverse)


_scan_opaquely = opaque(
    "diagonal_scan",
    lambda ts, options: [_diagonal_scan(ts[0], ts[1], bool(options[0]))],
    lambda ts: [torch.empty(ts[1].shape, dtype=ts[1].dtype, device=ts[1].device)],
    exported_only=True,
)


def _by_pytorch(a_BTR: Tensor, x_BTR: Tensor, reverse: bool) -> Tensor:
    a_TBR, x_TBR = a_BTR.transpose(0, 1), x_BTR.transpose(0, 1)
    if reverse:
        a_TBR, x_TBR = a_TBR.flip(0), x_TBR.flip(0)
    h_TBR: Tensor = _Scan.apply(a_TBR.contiguous(), x_TBR.contiguous())
    return (h_TBR.flip(0) if reverse else h_TBR).transpose(0, 1)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        h = _scan(a, x)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        a, h = ctx.saved_tensors
        # dL/dh_t = g_t + a_{t+1} dL/dh_{t+1}: the same scan from the end
        later = torch.cat((a.flip(0).roll(1, 0)[:1].zero_(), a[1:].flip(0)))
        grad_x = _scan(later, grad.flip(0).contiguous()).flip(0)
        grad_a = torch.zeros_like(a)
        torch.mul(grad_x[1:], h[:-1], out=grad_a[1:])
        return grad_a, grad_x


def _scan(a: Tensor, x: Tensor) -> Tensor:
    T = x.shape[0]
    h = torch.empty_like(x)
    if T <= LOOP:
        h[0] = x[0]
        for t in range(1, T):
            torch.addcmul(x[t], a[t], h[t - 1], out=h[t])
        return h
    pairs = T // 2
    even_a, odd_a = a[0 : 2 * pairs : 2], a[1::2]
    merged = torch.addcmul(x[1::2], odd_a, x[0 : 2 * pairs : 2])
    h[1::2] = _scan(odd_a * even_a, merged)
    h[0] = x[0]
    torch.addcmul(x[2::2], a[2::2], h[1 : T - 1 : 2], out=h[2::2])
    return h
