"""FEM as a layer, over every host prior: what gates and switches reduce it to, what a switch saves, causality."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from backbones.mixers import registry
from backbones.mixers.base import Context, Mixer
from backbones.mixers.fem.convolution import LowRankConvolution
from backbones.mixers.fem.fem import Fem, FemSoftmax, KeyedFemConfig
from backbones.mixers.priors.host_mixer import HostMixer
from tests.backbones.naive.fem import low_rank_convolution
from tests.tolerances import FP32_SCAN, FP64, PREFIX

HOST_OF = {
    "fem": "softmax",
    **{f"fem-{host}": host for host in ("linear", "gla", "simple-gla", "retention", "aft", "ssm")},
}
every_fem = pytest.mark.parametrize("name", HOST_OF)
both_ways = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
D, HEADS, T = 16, 2, 19
SWITCHES = ("convolution", "lse", "temperature", "gates")
Module = TypeVar("Module", bound=nn.Module)


def widths(cls: type[Mixer]) -> dict[str, int]:
    """Its width options, set to those of softmax attention."""
    return {option: D // HEADS for option in ("d_v", "d_k") if option in cls.Config.model_fields}


def built(name: str, causal: bool = True, length: int = T, **options: object) -> Fem:
    """In fp64, with noise on every parameter; values as wide as the host's."""
    cls = registry.get(name)
    mixer = cls(cls.Config(causal=causal, heads=HEADS, **{**widths(cls), **options}), D, length).double()
    assert isinstance(mixer, Fem)
    return moved(mixer)


def moved(module: Module) -> Module:
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype), alpha=0.3)
    return module


def inputs(tokens: int = T, dtype: torch.dtype = torch.float64) -> Tensor:
    """`[2, T, D]`; the last channel is 1, so that a gate that reads only that channel is constant."""
    x_BTD = torch.randn(2, tokens, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x_BTD[..., -1] = 1.0
    return x_BTD.to(dtype)


@torch.no_grad()
def without_convolution(mixer: Fem) -> None:
    """c = 0."""
    assert mixer.convolution is not None
    mixer.convolution.out_proj.zero_()


@torch.no_grad()
def hold(mixer: Fem, part: int, at: float) -> None:
    """Makes a projection (−2: λ's, −1: g's) the constant `at` on `inputs`."""
    weight = mixer.in_proj.weight.split(mixer.splits)[part]
    weight.zero_()
    weight[:, -1] = at


def same(one: Tensor, other: Tensor, tolerance: float = FP64) -> bool:
    return float((one - other).detach().abs().max()) <= tolerance * float(other.detach().abs().max())


@every_fem
@both_ways
def test_with_gates_of_zero_and_one_and_no_convolution_it_equals_its_host_prior(name: str, causal: bool) -> None:
    fem, cls = built(name, causal), registry.get(HOST_OF[name])
    host = moved(cls(cls.Config(causal=causal, heads=HEADS, **widths(cls)), D, T).double())
    assert isinstance(host, HostMixer)
    with torch.no_grad():
        fem.in_proj.weight[: host.in_proj.weight.shape[0]] = host.in_proj.weight
    fem.out_proj.load_state_dict(host.out_proj.state_dict())
    fem.prior.load_state_dict(host.prior.state_dict())
    without_convolution(fem)
    hold(fem, -2, -1e4)  # λ = 0
    hold(fem, -1, 40.0)  # g = 40 / sqrt(40² + eps) = 1
    assert same(fem(inputs()), host(inputs()), 1e-8)
    assert not same(built(name, causal)(inputs()), host(inputs()), 1e-2)


@every_fem
@both_ways
def test_without_temperature_it_reads_the_free_energy_alone(name: str, causal: bool) -> None:
    open_gate, without = built(name, causal), built(name, causal, temperature=False)
    keep = {
        key: value
        for key, value in open_gate.state_dict().items()
        if key not in ("in_proj.weight", "convolution.out_proj")
    }
    *keys_and_v, _, outer = open_gate.in_proj.weight.split(open_gate.splits)
    without.load_state_dict({**without.state_dict(), **keep, "in_proj.weight": torch.cat([*keys_and_v, outer])})
    without_convolution(open_gate)
    without_convolution(without)
    hold(open_gate, -2, 1e4)  # λ = 1
    assert same(without(inputs()), open_gate(inputs()))


@every_fem
@both_ways
@pytest.mark.parametrize("off", SWITCHES)
def test_what_is_off_has_no_parameters_and_the_widths_are_solved_again(name: str, causal: bool, off: str) -> None:
    cls, dim, length = registry.get(name), 128, 64
    budget = 4 * dim * dim
    full, less = (
        cls.size(cls.Config(causal=causal, heads=4, **options), dim, length, budget) for options in ({}, {off: False})
    )
    assert less.d_v >= full.d_v  # type: ignore[attr-defined]
    for config in (full, less):
        assert abs(cls.cost(config, dim, length).parameters / budget - 1) <= 0.05
    names = [{n.split(".")[0] for n, _ in cls(config, dim, length).named_parameters()} for config in (full, less)]
    gone = {"convolution": {"convolution"}, "lse": {"w_beta"}}.get(off, set())
    assert names[0] - names[1] == gone
    mixer = cls(less, dim, length)
    assert isinstance(mixer, Fem)
    E, host_parameters = mixer.widths.values, mixer.Host.parameters_of(mixer.widths)
    held = sum(p.numel() for p in mixer.parameters())
    kept = host_parameters + sum(mixer.Host.projected(mixer.widths)) * dim + 2 * E * dim
    gates = E * dim * ((off not in ("temperature", "lse")) + (off != "gates"))
    outputs = (kept - host_parameters - E * dim + gates) // dim
    R = max(2, round(E / 32)) if off != "convolution" else 0
    assert held == kept + gates + E * (off != "lse") + R * (3 * dim + outputs)


@every_fem
@pytest.mark.parametrize("tokens", [2, 9, 70])
def test_no_output_depends_on_later_tokens_when_values_span_two_hundred(name: str, tokens: int) -> None:
    fem, x_BTD = built(name, length=80).float(), inputs(tokens, torch.float32)
    seen = max(1, tokens // 2)
    with torch.no_grad():
        keys, v = sum(fem.splits[:-3]), fem.splits[-3]
        values = fem.in_proj.weight[keys : keys + v]
        values *= 200 / float((fem.in_proj(x_BTD)[:, :seen, keys : keys + v] * 1.9).abs().max())
        before = fem(x_BTD)[:, :seen]
        for change in (lambda z: 1.5 - z.flip(2), lambda z: 1e4 * z, lambda z: z[:, :0]):
            after = fem(torch.cat((x_BTD[:, :seen], change(x_BTD[:, seen:])), 1))[:, :seen]
            assert same(after, before, PREFIX)


@pytest.mark.parametrize("causal", [True, False])
def test_the_convolution_is_accurate_over_4096_tokens(causal: bool) -> None:
    torch.manual_seed(0)
    module = LowRankConvolution(D, 4, 12, causal)
    module.reset_parameters()
    moved(module)
    with torch.no_grad():
        module.in_proj[:4] -= 1.0  # decays from .5 to .99
    x_BTD = inputs(4096, torch.float32)
    wide = SimpleNamespace(convolution=copy.deepcopy(module).double(), config=SimpleNamespace(causal=causal))
    wanted = low_rank_convolution(wide, x_BTD.double(), Context())
    assert same((module.factors(x_BTD) @ module.out_proj).double(), wanted, FP32_SCAN)


def test_the_layer_norm_of_a_small_state_is_bounded_by_the_published_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    fem = built("fem")
    module = fem.convolution
    assert module is not None
    with torch.no_grad():
        module.in_proj[module.rank : 2 * module.rank] *= 1e-2  # variances of h near 1e-5
    wanted = low_rank_convolution(fem, inputs(), Context())
    assert same(module.factors(inputs()) @ module.out_proj, wanted, FP64)
    monkeypatch.setattr("tests.backbones.naive.fem.STATE_EPS", 2e-5)  # a wrong constant would be seen
    assert not same(low_rank_convolution(fem, inputs(), Context()), wanted, 0.01)


def test_an_initial_layer_has_the_stated_temperature_and_modulates_nothing() -> None:
    fem = FemSoftmax(KeyedFemConfig(heads=HEADS, d_v=4, d_k=8), D, T)
    assert fem.convolution is not None
    assert fem.w_beta is not None
    torch.testing.assert_close(fem.w_beta.detach(), torch.full_like(fem.w_beta, 1.8), rtol=0, atol=0)
    beta = torch.nn.functional.softplus(fem.w_beta.detach())  # log(1 + e^1.8)
    torch.testing.assert_close(beta, torch.full_like(beta, 1.952977), rtol=0, atol=1e-6)
    assert float(fem.convolution.out_proj.detach().abs().max()) == 0.0
