"""Layers of flash-linear-attention as mixers: sizes without the package, counts with it, runs in an interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from backbones.mixers import registry
from backbones.mixers.errors import MixerError
from backbones.mixers.fla import mixer
from backbones.mixers.fla.mixer import FlaMixer, Memory
from suite.models.budget import LAYER_TOLERANCE

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in registry.names() if name.startswith("fla/")]
try:
    INSTALLED = bool(version("flash-linear-attention"))
except PackageNotFoundError:
    INSTALLED = False
needs_fla = pytest.mark.skipif(not INSTALLED, reason="flash-linear-attention is not installed (the extra fla)")


@pytest.fixture
def without_fla(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mixer, "version", missing)
    monkeypatch.setattr(registry, "version", missing)


@pytest.fixture
def no_warnings() -> Iterator[None]:
    """The libraries warn on import about a missing GPU and about faster packages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_the_documented_layers_are_registered() -> None:
    documented = {"fla/gla", "fla/retnet", "fla/delta-net", "fla/gated-deltanet", "fla/mamba2", "fla/rwkv7"}
    assert documented | {"fla/simple-gla", "fla/kda", "fla/hgrn2"} == set(NAMES)


@pytest.mark.usefixtures("without_fla")
@pytest.mark.parametrize("name", NAMES)
def test_without_fla_a_layer_is_listed_and_names_what_to_install(name: str) -> None:
    cls = registry.get(name)
    assert issubclass(cls, FlaMixer)
    assert cls.obstacle() == "flash-linear-attention is not installed: pip install 'mixer-suite[fla]'"
    assert registry.origin(name) == "flash-linear-attention (not installed)"
    with pytest.raises(MixerError, match=r"cannot be built: .*pip install 'mixer-suite\[fla\]'"):
        cls(cls.size(cls.Config(), 128, 64, 4 * 128 * 128), 128, 64)


@pytest.mark.parametrize("dim", [128, 192, 384, 768])
@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_sized_within_the_tolerance(name: str, dim: int) -> None:
    cls = registry.get(name)
    chosen = cls.size(cls.Config(), dim, 256, 4 * dim * dim)
    assert abs(cls.cost(chosen, dim, 256).parameters / (4 * dim * dim) - 1) <= LAYER_TOLERANCE
    assert cls.size(chosen, dim, 256, dim * dim) == chosen  # a given width is kept


def test_an_impossible_width_is_refused_with_the_allowed_multiple() -> None:
    cls = registry.get("fla/retnet")
    with pytest.raises(MixerError, match="width 100 must be a multiple of 16 with 4 heads"):
        cls.size(cls.Config.model_validate({"width": 100}), 128, 64, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_device_without_kernels_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixer, "version", lambda name: "0.6.0")
    cls = registry.get(name)
    assert "need a GPU, 'cpu' was given" in cls.obstacle(torch.device("cpu"))
    for kind in ("cuda", "meta"):
        assert cls.obstacle(torch.device(kind)) == ""


def test_the_memory_is_what_a_layer_expects_of_its_cache() -> None:
    memory = Memory()
    assert (len(memory), memory.get_seq_length(0)) == (0, 0)
    state = torch.ones(1)
    memory.update(recurrent_state=state, conv_state=None, layer_idx=0, offset=3)
    assert (len(memory), memory.get_seq_length(0)) == (1, 3)
    assert memory[0] == {"recurrent_state": state, "conv_state": None}


@needs_fla
@pytest.mark.slow
@pytest.mark.usefixtures("no_warnings")
@pytest.mark.parametrize("name", NAMES)
def test_formulas_equal_the_counts_on_the_layer(name: str) -> None:
    cls = registry.get(name)
    for dim in (64, 128, 192, 384, 768):
        config = cls.size(cls.Config(), dim, 64, 4 * dim * dim)
        with torch.device("meta"):
            mixer = cls(config, dim, 64)
            assert mixer(torch.empty(2, 7, dim)).shape == (2, 7, dim)
        assert sum(p.numel() for p in mixer.parameters() if p.requires_grad) == cls.cost(config, dim, 64).parameters
        assert {name.rpartition(".")[2] for name, p in mixer.named_parameters() if p.dim() != 2 and p.dim() != 1} <= {
            "weight",
            *cls.no_weight_decay,  # convolutions, and the rates of RWKV-7
        }


@needs_fla
@pytest.mark.slow
@pytest.mark.usefixtures("no_warnings")
@pytest.mark.parametrize("name", NAMES)
def test_reset_draws_parameters_from_the_global_generator(name: str) -> None:
    cls = registry.get(name)
    mixer = cls(cls.size(cls.Config(), 64, 16, 4 * 64 * 64), 64, 16)
    drawn = []
    for _ in range(2):
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.fill_(7.25)
        torch.manual_seed(3)
        mixer.reset_parameters()
        drawn.append([p.detach().clone() for p in mixer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))
    assert not any(bool((p == 7.25).any()) for p in drawn[0])


@needs_fla
@pytest.mark.slow
@pytest.mark.usefixtures("no_warnings")
def test_a_cpu_is_refused_before_a_kernel_fails() -> None:
    cls = registry.get("fla/gla")
    mixer = cls(cls.size(cls.Config(), 64, 16, 4 * 64 * 64), 64, 16)
    with pytest.raises(MixerError, match=r"GatedLinearAttention cannot run: .* need a GPU"):
        mixer(torch.zeros(1, 4, 64))
    with pytest.raises(MixerError, match="causal only"):
        cls(cls.Config.model_validate({"causal": False, "width": 64}), 64, 16)


@needs_fla
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "fla/gla",
        "fla/simple-gla",
        "fla/retnet",
        "fla/delta-net",
        "fla/gated-deltanet",
        "fla/kda",
        "fla/hgrn2",
        "fla/mamba2",
    ],
)
def test_rows_and_decoding_state_pass_the_contract_in_tritons_interpreter(name: str) -> None:
    checks = "rows,state-size"
    variables = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.backbones.fla_interpreted", name, checks],
        env=variables,
        capture_output=True,
        text=True,
        timeout=550,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert [r for r in shown["results"] if r["status"] == "failed"] == []
    assert {r["check"] for r in shown["results"] if r["causal"] and r["status"] == "ok"} == set(checks.split(","))
