"""The two gates of FEM (arXiv 2602.07160): `y = RMS(softplus(b)) ⊙ [ (1−λ) ⊙ μ + λ ⊙ F ]`, `λ = sigmoid(a)`.

`RMS(s) = s / sqrt(mean(s²) + eps)` over the last dimension, the channels of a head. On a CPU the compiled
implementation runs, or one that works through blocks of rows that stay in the cache, forward and backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kernels.cpu.bf16.choice import takes_half, widened
from kernels.cpu.call import takes
from kernels.cpu.gates import GatedMix
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.nothing import nothing

EPS = 1e-5
BLOCK_ELEMENTS = 1 << 15


def rms(x: Tensor) -> Tensor:
    """`x / sqrt(mean(x²) + eps)` over the last dimension.

    Args:
        x: `[…, d]`.

    Returns:
        `[…, d]`.
    """
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


def gated_mix(mu: Tensor, F: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Both gates in one pass: interpolation between mean and free energy, and output scale.

    Args:
        mu: means `[…, d]`.
        F: free energies `[…, d]`.
        a: logits of the interpolation λ `[…, d]`.
        b: the output gate before softplus `[…, d]`.

    Returns:
        y `[…, d]`.
    """
    if mu.numel() == 0:
        return nothing(mu.shape, mu, F, a, b)
    if mu.shape == F.shape == a.shape == b.shape and takes_half(
        "gates", "c++ in fp32", "*d *d *d *d", mu, F, a, b, multiplies=False
    ):
        wide: Tensor = GatedMix.apply(*widened((mu, F, a, b)), EPS)
        return wide.to(torch.promote_types(mu.dtype, b.dtype))
    if mu.shape == F.shape == a.shape == b.shape and takes("*d *d *d *d", mu, F, a, b):
        mixed: Tensor = GatedMix.apply(mu, F, a, b, EPS)
        return mixed
    one_dtype = mu.dtype == F.dtype == a.dtype == b.dtype and mu.dtype in (torch.float32, torch.float64)
    if one_dtype and mu.device.type == "cpu" and not torch.compiler.is_compiling():
        out: Tensor = _GatedMix.apply(mu, F, a, b)
        return out
    return torch.lerp(mu, F, a.sigmoid().to(F.dtype)) * rms(softplus(b))


class _GatedMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mu, F, a, b):  # type: ignore[no-untyped-def]
        saved = [mu.new_empty(mu.shape) for _ in range(3)]  # the result, λ, softplus(b)
        inputs, rows_of = [_rows(x) for x in (mu, F, a, b)], [_rows(x) for x in saved]
        buffers = _Buffers(rows_of[0], 1)
        for rows in buffers.blocks:
            m, f, inner, outer = (x[rows] for x in inputs)
            out, gate, s = (x[rows] for x in rows_of)
            (scratch,) = buffers.sized(rows)
            _softplus(outer, scratch, out=s)
            torch.lerp(m, f, torch.sigmoid(inner, out=gate), out=out)
            out.mul_(s).mul_(buffers.inverse_rms(s, scratch))
        ctx.save_for_backward(mu, F, *saved[1:])
        return saved[0]

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        inputs = [_rows(x) for x in ctx.saved_tensors]
        outs = [grad.new_empty(grad.shape) for _ in inputs]
        grads, grad = [_rows(x) for x in outs], _rows(grad)
        buffers = _Buffers(grad, 3)
        for rows in buffers.blocks:
            m, f, gate, s = (x[rows] for x in inputs)
            grad_m, grad_f, grad_a, grad_b = (x[rows] for x in grads)
            normed, difference, scratch = buffers.sized(rows)
            inverse = buffers.inverse_rms(s, scratch)
            torch.mul(s, inverse, out=normed)
            torch.sub(f, m, out=difference)
            torch.addcmul(m, difference, gate, out=scratch).mul_(grad[rows])  # d RMS(softplus(b))
            torch.mul(grad[rows], normed, out=grad_m)  # d mix, for now
            torch.mul(grad_m, gate, out=grad_f)
            grad_m.sub_(grad_f)
            torch.addcmul(grad_f, grad_f, gate, value=-1.0, out=grad_a).mul_(difference)
            inside = buffers.mean(torch.mul(scratch, normed, out=difference))
            scratch.addcmul_(normed, inside, value=-1.0).mul_(inverse)
            # d softplus = sigmoid(b) = 1 − e^{−softplus(b)}
            torch.mul(scratch, torch.neg(s, out=difference).expm1_().neg_(), out=grad_b)
        return tuple(outs)


def _softplus(x: Tensor, scratch: Tensor, out: Tensor) -> Tensor:
    """log1p(exp(−|x|)) + max(x, 0): vectorised passes, twice as fast as PyTorch's softplus on a CPU."""
    torch.abs(x, out=out).neg_().exp_().log1p_()
    return out.add_(torch.clamp(x, min=0.0, out=scratch))


class _Buffers:
    """Blocks of rows and reused memory for their intermediates: new memory per block costs more than the arithmetic."""

    def __init__(self, like: Tensor, count: int) -> None:
        step = max(1, BLOCK_ELEMENTS // (like.shape[1] * like.shape[2]))
        self.blocks = [slice(start, min(start + step, len(like))) for start in range(0, len(like), step)]
        self.memory = like.new_empty(count, min(step, len(like)), *like.shape[1:])
        self.averages = like.new_full((like.shape[2], 1), 1.0 / like.shape[2])

    def sized(self, rows: slice) -> tuple[Tensor, ...]:
        return self.memory[:, : rows.stop - rows.start].unbind()

    def mean(self, x: Tensor) -> Tensor:
        """Over the last dimension, by a product: a reduction over few channels is slower."""
        return x @ self.averages

    def inverse_rms(self, s: Tensor, scratch: Tensor) -> Tensor:
        return self.mean(torch.mul(s, s, out=scratch)).add_(EPS).rsqrt_()


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-2], x.shape[-1]) if x.dim() > 2 else x.reshape(-1, 1, x.shape[-1])
