"""The compiled kernels: what is built and when, and that a machine without a compiler runs PyTorch's forms and is
told.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from backbones.mixers.rotary import rotate
from kernels.attention import softmax_read
from kernels.channelwise import channelwise_read
from kernels.cpu import library as built
from kernels.cpu.call import takes
from kernels.free_energy import free_energy_read
from kernels.gates import gated_mix
from kernels.linear.sums import decayed_sums
from kernels.projection import modulated_projection
from kernels.rows import rms_norm, swiglu
from kernels.scan import diagonal_scan
from kernels.selective.sums import selective_sums


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No library loaded and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SUITE_COMPILED_KERNELS", raising=False)
    built.library.cache_clear()
    yield tmp_path / "mixer-suite"
    built.library.cache_clear()


def scanned() -> float:
    a, x = torch.full((1, 5, 2), 0.5), torch.ones(1, 5, 2)
    return float(diagonal_scan(a, x)[0, -1, 0])


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler here")
def test_it_is_built_once_told_once_and_found_again(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert built.library() is not None
    [made] = fresh.iterdir()
    assert str(made) in caplog.text
    assert scanned() == 1.9375
    caplog.clear()
    built.library.cache_clear()
    before = made.stat().st_mtime_ns
    assert built.library() is not None
    assert made.stat().st_mtime_ns == before
    assert not caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CXX", "no-such-compiler", "no C++ compiler (no-such-compiler is not on the PATH)"),
        ("CXX", "false", "returned non-zero exit status"),
        ("SUITE_COMPILED_KERNELS", "off", "SUITE_COMPILED_KERNELS is off"),
    ],
)
def test_without_it_pytorch_runs_and_the_reason_is_told_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING):
        assert [scanned(), scanned()] == [1.9375, 1.9375]
    assert caplog.text.count("PyTorch's forms run") == 1
    assert said in caplog.text


def test_a_source_that_does_not_compile_leaves_nothing_behind(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("this is not C++\n")
    monkeypatch.setattr(built, "SOURCES", (broken,))
    with caplog.at_level(logging.WARNING):
        assert built.library() is None
    assert "failed: " in caplog.text
    assert "broken.cpp" in caplog.text
    assert not list(fresh.iterdir())


def test_what_raw_pointers_would_read_wrongly_is_pytorchs() -> None:
    x = torch.ones(1, 3, 2)
    refused: list[tuple[str, tuple[Tensor, ...]]] = [
        ("ABC ABC", (x.half(), x.half())),
        ("ABC ABC", (x, x.double())),
        ("ABC ABC", (x.to("meta"), x.to("meta"))),
        ("ABC ABC", (x, x[:, :1])),
        ("AB", (x,)),
        ("*D D", (x, x[0, 0, :1])),
        ("ABC AB1", (x, x)),
        ("ABC", (x[:0],)),
        ("ABC", (torch._neg_view(x),)),
    ]
    assert [case for case in refused if takes(*case[:1], *case[1])] == []
    if library_is_there():
        assert takes("ABC AB1 *C C", x, x[..., :1], x, x[0, 0])
        with FlopCounterMode(display=False):
            assert not takes("ABC", x)


def library_is_there() -> bool:
    return built.library() is not None


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def selective() -> list[Tensor]:
    delta, a, b, c = (
        normal(3, 70, 130).abs(),
        -normal(4, 130, seed=1).abs(),
        normal(3, 70, 4, seed=2),
        normal(3, 70, 4, seed=3),
    )
    inputs = [x.requires_grad_() for x in (delta, a, b, c, normal(3, 70, 1, 130, seed=4))]
    return with_gradients(selective_sums(*inputs), inputs)


def linear() -> list[Tensor]:
    inputs = [normal(2, 150, 3, w, seed=w).requires_grad_() for w in (5, 6, 7)]
    decay = (-normal(2, 150, 3, 1).abs()).requires_grad_()
    q, k, v = inputs[0], inputs[1][..., :5], inputs[2]
    return with_gradients(decayed_sums(q, k, v, decay), [*inputs, decay])


def linear_channels() -> list[Tensor]:
    inputs = [normal(2, 150, 3, w, seed=w).requires_grad_() for w in (5, 6, 7)]
    decay = (-normal(2, 150, 3, 5).abs()).requires_grad_()
    return with_gradients(decayed_sums(inputs[0], inputs[1][..., :5], inputs[2], decay), [*inputs, decay])


def free_energy() -> list[Tensor]:
    inputs = [normal(2, 150, 3, w, seed=w).requires_grad_() for w in (5, 6, 7)]
    beta = (1.0 + normal(3, 7).abs()).requires_grad_()
    mu, F = free_energy_read(inputs[0], inputs[1][..., :5], inputs[2], beta, causal=True)
    return with_gradients(torch.cat((mu, F), -1), [*inputs, beta])


def block() -> list[Tensor]:
    inputs = [normal(2, 150, 40), normal(60, 40, seed=1), normal(40, 30, seed=2), normal(40, seed=3)]
    x, up, down, gain = (t.requires_grad_() for t in inputs)
    out = swiglu(rms_norm(x, gain, 1e-6), up, down)
    return with_gradients(rotate(out.unflatten(-1, (4, 10))), inputs)


def attention() -> list[Tensor]:
    inputs = [normal(9, 10, 2, 8, seed=i).requires_grad_() for i in range(3)]
    return with_gradients(softmax_read(*inputs, causal=False), inputs)


def gates() -> list[Tensor]:
    inputs = [normal(3, 70, 4, 5, seed=i).requires_grad_() for i in range(4)]
    return with_gradients(gated_mix(*inputs), inputs)


def projection() -> list[Tensor]:
    inputs = [normal(3, 300, 9), normal(7, 9, seed=1), normal(3, 300, 2, seed=2), normal(2, 7, seed=3)]
    x, w, s, p = (t.requires_grad_() for t in inputs)
    return with_gradients(torch.cat(modulated_projection(x, w, (4, 3), s, p), -1), inputs)


def channels() -> list[Tensor]:
    inputs = [normal(2, 70, 130), normal(2, 70, 130, seed=1), normal(2, 70, 130, seed=2)]
    k, v, a = (t.requires_grad_() for t in inputs)
    return with_gradients(diagonal_scan(a.sigmoid(), channelwise_read(k, v[:, :, None])[:, :, 0]), inputs)


def with_gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


COMPUTATIONS = [attention, selective, linear, linear_channels, free_energy, block, gates, projection, channels]


@pytest.mark.parametrize("computed", COMPUTATIONS, ids=lambda c: c.__name__)
def test_threads_change_no_bit(computed: Callable[[], list[Tensor]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.cpu.call.WORK_A_THREAD", 1)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(computed())
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))
