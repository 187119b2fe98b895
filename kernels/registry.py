"""Every kernel once: its function, what it computes, its implementations, and calls of it on small inputs.

The ahead-of-time compiler, the roofline and the tests read this table, so a kernel that is registered here is compiled,
estimated and tested without further edits. Functions are named, not imported: nothing is loaded until it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from kernels import work
from kernels.calls import Call, OnGpu
from kernels.cpu.bf16.choice import Form


@dataclass(frozen=True)
class Kernel:
    """A public function and its implementations.

    Where `triton` is True, the module `kernels.gpu.<name>` has a function with the name and arguments of the public
    one, and `refusal` with the same arguments.
    """

    name: str  # as in warnings and records
    function: str  # "module:name"
    computes: str  # one line
    calls: tuple[Call, ...]  # for tests and the ahead-of-time compiler
    cpp: tuple[str, ...] = ()  # C++ functions that it calls alone, without dtype and `_backward`
    bf16: tuple[str, ...] = ()  # the same, those for bf16 autocast
    under_autocast: Form | None = None  # the compiled implementation under bf16 autocast, as a record names it
    triton: bool = False
    work: Callable[[], work.Work] | None = None  # for the roofline
    compared: bool = False  # timed alone by `suite bench kernels`, not only within layers
    leading: str = "BT"  # the first dimensions of its results

    def load(self) -> Callable[..., Any]:
        """The public function, which chooses the implementation."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function

    def load_triton(self) -> Callable[..., Any]:
        """The Triton implementation itself; this imports Triton."""
        function: Callable[..., Any] = getattr(import_module(f"kernels.gpu.{self.name}"), self.function.split(":")[1])
        return function


def _causal(*tensors: Tensor) -> tuple[Any, ...]:
    return *tensors, True


def _gated(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Any, ...]:
    return q, k, v, True, None, None, log_f


def _lag_mixing(q: Tensor, k: Tensor, v: Tensor, *mixing: Tensor) -> tuple[Any, ...]:
    """The same mixing for each score set and after the activation."""
    from kernels.hyper.lag_mixing import LagMixing
    from kernels.numerics.lag_layout import Layout

    each = LagMixing(*mixing)
    return q, k, v, [each] * len(q), each, Layout(causal=True, by_lag=True, length=v.shape[2])


def _linear_free_energy(log_q: Tensor, log_k: Tensor, decay: Tensor, v: Tensor, beta: Tensor) -> tuple[Any, ...]:
    from kernels.linear.weights import LinearWeights

    return LinearWeights.of(log_q, log_k, decay, None), v, beta, True


def _low_rank(*parts: Tensor) -> tuple[Any, ...]:
    return torch.cat(parts, dim=-1), True, None, parts[0].dtype


def _rotation(x_BTHw: Tensor) -> tuple[Any, ...]:
    angles = torch.linspace(0.0, 9.0, x_BTHw.shape[1] * x_BTHw.shape[3] // 2, dtype=x_BTHw.dtype)
    angles_T1c = angles.view(x_BTHw.shape[1], 1, x_BTHw.shape[3] // 2)
    return (x_BTHw,), angles_T1c.cos(), angles_T1c.sin()


def _rotated_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Any, ...]:
    return q, k, v, True, None, None, None, 0, _rotation(q)[1:]


_SOFTMAX = "q BTHk row, k BTHk later, v BTHw later"
_LINEAR = "q BTHk row, k BTHk later, v BTHw later"
_DELTA = "q BTHk row, k BTHk later small, v BTHw later, beta BTH later unit"
_LINEAR_EXACT = "log_q BTHk row, log_k BTHk later, log_decay BTHk later negative, v BTHw later, u BTHw later"
_SELECTIVE = "delta BTE later positive, a NE all negative, b BTN later, c BTN row, v BTcE later"
_LOG_SELECTIVE = "log_delta BTE later, a NE all negative, log_b BTN later, log_c BTN row, log_skip E all, v BTE later"
_LAG_MIXING = (
    "q sHBTk row, k sHBTk later, v HBTw later, first HTr all, second HTr all, diagonal HT all, control HBTr row"
)
_HYPER_SIZES = {"H": 2, "B": 4, "k": 32, "w": 64, "r": 16}

KERNELS = (
    Kernel(
        "attention",
        "kernels.attention:softmax_read",
        "softmax attention, values of any width; gates between tokens, windows",
        (
            Call("causal", _SOFTMAX, _causal),
            Call("gates", f"{_SOFTMAX}, log_f BTH later negative", _gated),
            Call("rotated", _SOFTMAX, _rotated_attention),
        ),
        cpp=("attention",),
        under_autocast="c++ in fp32",
        compared=True,
    ),
    Kernel(
        "free_energy",
        "kernels.free_energy:free_energy_read",
        "mean and free energy of the values under a softmax prior",
        (
            Call(
                "causal",
                f"{_SOFTMAX}, beta Hw all above_one",
                _causal,
                on_gpu=(
                    OnGpu("bf16, keys 64, values 32", {"k": 64, "w": 32}, torch.bfloat16),
                    OnGpu("bf16, keys 128, values 64", {"k": 128, "w": 64}, torch.bfloat16),
                    OnGpu("fp32, keys 64, values 32", {"k": 64, "w": 32}),
                ),
            ),
        ),
        cpp=("carried", "free_energy"),
        triton=True,
        work=work.free_energy,
        compared=True,
    ),
    Kernel(
        "linear",
        "kernels.linear.sums:decayed_sums",
        "causal sums of linear attention, with and without decay",
        (
            Call("no decay", _LINEAR, on_gpu=(OnGpu("no decay", {"k": 64, "w": 129}),)),
            Call(
                "one decay per head",
                f"{_LINEAR}, log_decay BTH1 later negative",
                on_gpu=(OnGpu("one decay per head", {"k": 64, "w": 129}),),
            ),
            Call(
                "one decay per channel",
                f"{_LINEAR}, log_decay BTHk later negative",
                on_gpu=(OnGpu("one decay per channel", {"k": 64, "w": 129}),),
            ),
        ),
        cpp=("linear", "linear_channels"),
        triton=True,
        work=work.linear,
        compared=True,
    ),
    Kernel(
        "linear_exact",
        "kernels.linear.exact:exact_read",
        "mean and log-mean-exp under linear attention, in the log domain, for any finite values",
        (
            Call(
                "one decay per channel",
                _LINEAR_EXACT,
                _causal,
                on_gpu=(OnGpu("one decay per channel", {"k": 64, "w": 32}),),
            ),
        ),
        triton=True,
    ),
    Kernel(
        "linear_free_energy",
        "kernels.linear.free_energy:linear_free_energy",
        "mean and free energy of the values under a linear prior",
        (
            Call(
                "one decay per channel",
                "log_q BTHk row, log_k BTHk later, log_decay BTHk later negative, v BTHw later, beta Hw all above_one",
                _linear_free_energy,
            ),
        ),
    ),
    Kernel(
        "selective",
        "kernels.selective.sums:selective_sums",
        "selective scan of a diagonal state space, several inputs in one pass",
        (
            Call(
                "one input",
                _SELECTIVE,
                on_gpu=(OnGpu("16 states, 3 inputs", {"E": 512, "N": 16, "c": 3}),),
            ),
        ),
        cpp=("selective",),
        triton=True,
        work=work.selective,
        compared=True,
    ),
    Kernel(
        "selective_exact",
        "kernels.selective.exact:exact_read",
        "mean and log-mean-exp under a selective scan, in the log domain, for any finite values",
        (
            Call(
                "causal",
                f"{_LOG_SELECTIVE}, u BTE later",
                on_gpu=(OnGpu("16 states", {"E": 512, "N": 16}),),
            ),
        ),
        triton=True,
    ),
    Kernel(
        "selective_free_energy",
        "kernels.selective.free_energy:selective_free_energy",
        "mean and free energy of the values under a selective scan",
        (Call("causal", f"{_LOG_SELECTIVE}, beta E all above_one", lambda *ts: (ts[:5], *ts[5:])),),
    ),
    Kernel(
        "channelwise",
        "kernels.channelwise:channelwise_read",
        "mean under weights that differ by channel and come from keys alone (AFT)",
        (Call("causal", "k BTE later, v BTcE later"),),
        cpp=("channelwise",),
        compared=True,
    ),
    Kernel(
        "channelwise_free_energy",
        "kernels.channelwise:channelwise_free_energy",
        "mean and free energy under channelwise weights",
        (Call("causal", "k BTE later, v BTE later, beta E all above_one"),),
    ),
    Kernel(
        "scan",
        "kernels.scan:diagonal_scan",
        "diagonal scan h_t = a_t h_{t−1} + x_t",
        (Call("forward", "a BTE later unit, x BTE later", on_gpu=(OnGpu("", {"E": 16}),)),),
        cpp=("diagonal",),
        triton=True,
        work=work.scan,
        compared=True,
    ),
    Kernel(
        "hyper",
        "kernels.hyper.lag_mixing:lag_mix",
        "lag mixing, the attention of HyperMLP and HyperGLU",
        (
            Call("HyperMLP", _LAG_MIXING, _lag_mixing, on_gpu=(OnGpu("HyperMLP, rank 16", _HYPER_SIZES),)),
            Call("HyperGLU", _LAG_MIXING, _lag_mixing, {"s": 2}, (OnGpu("HyperGLU, rank 16", _HYPER_SIZES),)),
        ),
        cpp=("lag_mix",),
        triton=True,
        work=work.hyper,
        compared=True,
        leading="HBT",
    ),
    Kernel(
        "rms_norm",
        "kernels.rows:rms_norm",
        "root-mean-square norm with a gain",
        (Call("rows", "x BTD row, gain D all", lambda x, gain: (x, gain, 1e-6)),),
        cpp=("rms_norm",),
    ),
    Kernel(
        "swiglu",
        "kernels.rows:swiglu",
        "SwiGLU, the feed-forward part of a block",
        (Call("rows", "x BTD row, up UD all, down DF all"),),
        cpp=("swiglu",),
        bf16=("swiglu",),
        under_autocast="c++ in bf16",
    ),
    Kernel(
        "feed_forward",
        "kernels.rows:feed_forward",
        "the rest of a block after its mixer: sum, norm, SwiGLU, sum",
        (Call("rows", "x BTD row, m BTD row, gain D all, up UD all, down DF all", lambda *given: (*given, 1e-6)),),
        cpp=("feed_forward",),
    ),
    Kernel(
        "plain_projection",
        "kernels.projection:projections",
        "several projections of one input",
        (Call("rows", "x BTD row, w CD all", lambda x, w: (x, w, (4, 3))),),
        cpp=("plain",),
    ),
    Kernel(
        "rotation",
        "kernels.rows:rotate_pairs",
        "rotation of pairs of channels by position (rotary positions)",
        (Call("rows", "x BTHk row", _rotation),),
        cpp=("rotate",),
    ),
    Kernel(
        "gates",
        "kernels.gates:gated_mix",
        "FEM's gates: a mix of mean and free energy, scaled by a normalised softplus",
        (Call("rows", "mu BTHk row, F BTHk row, a BTHk row, b BTHk row"),),
        cpp=("gated_mix",),
        under_autocast="c++ in fp32",
    ),
    Kernel(
        "projection",
        "kernels.projection:modulated_projection",
        "several projections of one input, each scaled by a low-rank factor",
        (Call("rows", "x BTD row, w CD all, s BTr row, p rC all", lambda x, w, s, p: (x, w, (4, 3), s, p)),),
        cpp=("projection",),
        bf16=("projection",),
        under_autocast="c++ in bf16",
    ),
    Kernel(
        "normed_projection",
        "kernels.low_rank:normed_projection",
        "a few projections of the layer-normalised input",
        (Call("rows", "x BTD row, w rD all"),),
        cpp=("normed_projection",),
    ),
    Kernel(
        "low_rank_scan",
        "kernels.low_rank:low_rank_scan",
        "FEM's low-rank convolution: decays, inputs and scales of a few channels, their scan and norm",
        (Call("causal", "a BTr later, u BTr later, s BTr row", _low_rank),),
        cpp=("low_rank_scan",),
    ),
    Kernel(
        "short_conv",
        "kernels.short_conv:short_conv",
        "short depthwise convolution along the sequence",
        (
            Call("causal", "x BTD row, taps JD all", _causal, {"J": 4}),
            Call("residual", "x BTD row, taps JD all", lambda x, taps: (x, taps, True, True), {"J": 3}),
        ),
        cpp=("short_conv",),
    ),
    Kernel(
        "delta",
        "kernels.linear.delta:delta_rule",
        "the delta rule, with and without decay",
        (
            Call(
                "decay",
                f"{_DELTA}, log_decay BTH later negative",
                on_gpu=(
                    OnGpu("decay", {"k": 64, "w": 64}),
                    OnGpu("decay, bf16", {"k": 64, "w": 64}, torch.bfloat16),
                    OnGpu("decay, keys 128", {"k": 128, "w": 128}),
                ),
            ),
            Call("no decay", _DELTA, on_gpu=(OnGpu("no decay", {"k": 64, "w": 64}),)),
        ),
        cpp=("delta",),
        triton=True,
        compared=True,
    ),
    Kernel(
        "channel_delta",
        "kernels.linear.channel_delta:channel_delta_rule",
        "the delta rule with one decay per key channel, reading and storing under one key or two",
        (
            Call("one key", f"{_DELTA}, log_decay BTHk later negative"),
            Call("two keys", f"{_DELTA}, log_decay BTHk later negative, read BTHk later small"),
        ),
        cpp=("delta_channels",),
        compared=True,
    ),
    Kernel(
        "prefix_softmax",
        "kernels.prefix_softmax:prefix_softmax_read",
        "attention whose logits come from keys alone",
        (Call("causal", "logits BTH later, v BTHw later", _causal),),
    ),
    Kernel(
        "taylor",
        "kernels.taylor:taylor_read",
        "attention with the second Taylor polynomial of the exponential",
        (Call("causal", "q BTHk row, k BTHk later, v BTHw later", _causal),),
    ),
)


def get(name: str) -> Kernel:
    """The kernel of that name; KeyError if there is none."""
    return {kernel.name: kernel for kernel in KERNELS}[name]
