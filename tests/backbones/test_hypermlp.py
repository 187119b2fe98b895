"""HyperMLP and HyperGLU: formulas, switches, sizes and refusals."""

from __future__ import annotations

import copy
import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.contract.probe import Case, NaiveForward, Probe
from backbones.mixers import registry
from backbones.mixers.base import Context, Mixer
from backbones.mixers.errors import MixerError
from backbones.mixers.hyper.config import HyperConfig
from backbones.mixers.hyper.hypermlp import HyperGLU, HyperMixer, HyperMLP
from tests.backbones.naive import load_naive_references
from tests.backbones.naive.hyper import hyper
from tests.tolerances import FP32, FP64, PREFIX

BOTH = [HyperMLP, HyperGLU]
NEARBY = 16  # evaluations of the formula


def build(
    cls: type[HyperMixer], length: int = 12, dim: int = 16, dtype: torch.dtype = torch.float64, **options: object
) -> HyperMixer:
    torch.manual_seed(0)
    mixer = cls(HyperConfig.model_validate({"rank": 3, "d_qk": 8, **options}), dim, length).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return mixer


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


SWITCHES: list[dict[str, Any]] = [
    dict(zip(("causal", "lag_layout", "mixing", "convolution", "gates"), values, strict=True))
    for values in itertools.product((True, False), (True, False), ("both", "R1", "R2"), (True, False), (True, False))
]


@pytest.mark.parametrize("cls", BOTH)
def test_it_equals_the_naive_reference_for_all_switches_with_and_without_padding(cls: type[HyperMixer]) -> None:
    x_BTD, mask_BT = draw(2, 9, 16), torch.ones(2, 9, dtype=torch.bool)
    mask_BT[0, :4] = False
    for switches in SWITCHES:
        mixer = build(cls, **switches)
        for context in (Context(), Context(mask_BT=mask_BT)):
            real = mask_BT[..., None] if context.mask_BT is not None else torch.tensor(True)
            error = (mixer(x_BTD, context) - hyper(mixer, x_BTD, context)) * real
            assert error.abs().max() <= FP64, f"{switches}, mask {context.mask_BT is not None}"


@pytest.mark.parametrize("cls", BOTH)
def test_step_equals_forward_and_formulas_equal_counts_for_all_switches(cls: type[HyperMixer]) -> None:
    x_BTD = draw(2, 9, 16)
    for switches in SWITCHES:
        mixer = build(cls, **switches)
        stated = cls.cost(mixer.config, 16, 12)
        assert stated.parameters == sum(p.numel() for p in mixer.parameters())
        if not mixer.config.causal:
            continue
        state = mixer.init_state(2, 12)
        assert state.bytes() == 2 * 2 * stated.state_bytes, "two sequences, eight bytes per number"
        for t in range(9):
            y_BD, state = mixer.step(x_BTD[:, t], state)
            torch.testing.assert_close(y_BD, mixer(x_BTD[:, : t + 1])[:, t], rtol=1e-10, atol=1e-12)


def test_what_is_switched_off_has_no_parameters() -> None:
    def count(**options: Any) -> int:
        return sum(p.numel() for p in build(HyperMLP, **options).parameters())

    full, D, L, H, r, d_qk = count(), 16, 12, 2, 3, 8
    assert full - count(convolution=False) == 4 * D
    assert full - count(gates=False) == D * d_qk + D * D + 2 * H * D * r
    assert full - count(mixing="R1") == H * (2 * L * r + L + D * r)
    assert count(causal=False) - full == 2 * H * (L - 1) * (2 * r + 1)


@pytest.mark.parametrize("causal", [True, False])
def test_without_mixing_gates_and_convolution_it_is_relu_attention_with_an_l2_norm(causal: bool) -> None:
    mixer = build(HyperMLP, causal=causal)
    assert mixer.taps is not None
    with torch.no_grad():
        for table in (mixer.lag_A, mixer.lag_B, mixer.lag_p, mixer.taps):
            table.zero_()
        mixer.taps[0] = 1.0
        mixer.in_proj.weight[mixer.in_splits[0] :] = 0.0  # all sigmoids are one half
    x, (W_q, *_) = draw(2, 9, 16), mixer.in_proj.weight.split(mixer.in_splits)
    W_k, W_v = mixer.kv_proj.weight.split(mixer.kv_splits)
    q, k, v = ((x @ W.T).view(2, 9, 2, -1).transpose(1, 2) for W in (W_q, W_k, W_v))
    scores = 0.5 * q @ k.transpose(2, 3)
    scores = scores.tril() if causal else scores
    attention = scores.relu() / (scores.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    expected = 0.5 * (attention @ v).transpose(1, 2).flatten(2) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("lag_layout", [True, False])
def test_outputs_do_not_change_when_the_sequence_continues(cls: type[HyperMixer], lag_layout: bool) -> None:
    mixer, x_BTD = build(cls, 96, dtype=torch.float32, lag_layout=lag_layout), draw(1, 96, 16, dtype=torch.float32)
    long = mixer(x_BTD)
    for t in (1, 2, 63, 64, 65):
        change = (mixer(x_BTD[:, :t]) - long[:, :t]).abs().max()
        assert change <= PREFIX * long[:, :t].abs().max()


@pytest.mark.parametrize("cls", BOTH)
def test_the_norm_of_nearly_empty_rows_is_bounded_by_the_published_constant(
    cls: type[HyperMixer], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer, x_BTD = build(cls), 1e-3 * draw(2, 9, 16)  # sums of squares near 1e-12
    wanted = hyper(mixer, x_BTD, Context())
    torch.testing.assert_close(mixer(x_BTD), wanted, rtol=1e-9, atol=1e-9 * float(wanted.detach().abs().max()))
    monkeypatch.setattr("tests.backbones.naive.hyper.EPS", 1e-11)  # a wrong constant would be seen
    with torch.no_grad():
        assert float((hyper(mixer, x_BTD, Context()) - wanted).norm() / wanted.norm()) > 0.01


@pytest.mark.parametrize("cls", BOTH)
def test_zero_inputs_give_zero_and_backward_runs_under_bf16_autocast(cls: type[HyperMixer]) -> None:
    mixer = build(cls, dtype=torch.float32)
    assert torch.equal(mixer(torch.zeros(1, 5, 16)), torch.zeros(1, 5, 16))
    with torch.autocast("cpu", torch.bfloat16):
        loss = mixer(draw(2, 12, 16, dtype=torch.float32)).float().square().mean()
        loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in mixer.parameters())


@pytest.mark.parametrize("cls", BOTH)
def test_a_sequence_longer_than_the_tables_is_refused(cls: type[HyperMixer]) -> None:
    mixer, said = build(cls, 4), rf"{cls.name}: T=5 .* length 4 .* length 5"
    with pytest.raises(MixerError, match=said):
        mixer(draw(1, 5, 16))
    with pytest.raises(MixerError, match=said):
        mixer.init_state(1, 5)
    state = mixer.init_state(1, 4)
    for t in range(4):
        _, state = mixer.step(draw(1, 4, 16)[:, t], state)
    with pytest.raises(MixerError, match=said):
        mixer.step(draw(1, 16), state)


def test_the_published_defaults_have_the_published_cost() -> None:
    published = HyperConfig(rank=16, d_qk=2048 // 4)
    assert HyperGLU.cost(published, 2048, 4096).parameters / 2048**2 == pytest.approx(4.00, abs=0.01)
    small = published.model_copy(update={"d_qk": 128 // 4})
    assert round(HyperGLU.cost(small, 128, 1024).parameters / 128**2) == 17


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    "shape", [(128, 256, True), (128, 49, False), (96, 49, False), (64, 42, False), (384, 1024, True)]
)
def test_the_size_is_the_largest_rank_with_an_eighth_of_the_width_then_the_nearest(
    cls: type[HyperMixer], shape: tuple[int, int, bool]
) -> None:
    dim, length, causal = shape
    budget = 4 * dim**2
    chosen = cls.size(HyperConfig(causal=causal), dim, length, budget)
    count = {
        (c.rank or 0, c.d_qk or 0): cls.cost(c, dim, length).parameters
        for c in cls.candidates(HyperConfig(causal=causal), dim, length)
    }
    rank = max(r for r, d_qk in count if 8 * d_qk >= dim and count[r, d_qk] <= budget)
    d_qk = min((d for r, d in count if r == rank and 8 * d >= dim), key=lambda d: abs(count[rank, d] - budget))
    assert (chosen.rank, chosen.d_qk) == (rank, d_qk)
    assert abs(count[rank, d_qk] / budget - 1) <= 0.05


def test_at_rank_one_d_qk_may_be_below_an_eighth_of_the_width_and_meet_the_budget() -> None:
    chosen = HyperMLP.size(HyperConfig(), 128, 1024, 4 * 128**2)
    assert (chosen.rank, chosen.d_qk) == (1, 8)
    assert HyperMLP.cost(chosen, 128, 1024).parameters == 4 * 128**2


def test_a_length_over_the_budget_is_refused_with_both_counts_and_what_fits() -> None:
    with pytest.raises(MixerError) as refusal:
        HyperGLU.size(HyperConfig(), 128, 1024, 4 * 128**2)
    for said in ("hyperglu", "D=128", "L=1024", "4.39 D²", "4.00", "fits from D=192, or L ≤ 668"):
        assert said in str(refusal.value)
    assert HyperGLU.size(HyperConfig(), 192, 1024, 4 * 192**2).rank == 1
    with pytest.raises(MixerError):
        HyperGLU.size(HyperConfig(), 160, 1024, 4 * 160**2)
    assert HyperGLU.size(HyperConfig(), 128, 668, 4 * 128**2).rank == 1
    with pytest.raises(MixerError):
        HyperGLU.size(HyperConfig(), 128, 669, 4 * 128**2)


def test_a_given_width_stays_and_the_other_is_solved() -> None:
    assert HyperMLP.size(HyperConfig(rank=2), 128, 256, 4 * 128**2).rank == 2
    assert HyperMLP.size(HyperConfig(d_qk=32), 128, 256, 4 * 128**2).d_qk == 32
    given = HyperConfig(rank=9, d_qk=64)
    assert HyperMLP.size(given, 128, 256, 4 * 128**2) == given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"d_qk": 6, "rank": 1}, "hyperglu: d_qk=6 has to be a multiple of 4, heads × score sets"),
        ({"d_qk": 8}, "hyperglu: rank and d_qk are not given"),
        ({"d_qk": 8, "rank": 1, "heads": 3}, "heads=3 does not divide the width 16"),
    ],
)
def test_widths_that_do_not_fit_are_refused_in_one_line(options: dict[str, int], said: str) -> None:
    with pytest.raises(MixerError, match=said):
        HyperGLU(HyperConfig.model_validate(options), 16, 8)


def test_a_mixer_that_is_not_causal_does_not_decode() -> None:
    with pytest.raises(MixerError, match="only a causal mixer decodes"):
        build(HyperMLP, causal=False).init_state(1, 4)


@pytest.mark.parametrize("name", ["hypermlp", "hyperglu"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
@pytest.mark.parametrize("tokens", [2, 65])
def test_fp32_gradients_are_as_near_to_fp64_as_those_of_the_formula(name: str, causal: bool, tokens: int) -> None:
    """The norm of a row removes the part of its gradient along the scores, and divides what is left by the norm. Where
    a row sees few keys, or its scores are small, that difference is mostly rounding: the formula itself, with autograd
    in fp32, is as far from fp64 (up to 5e-5 of the largest entry here; more where a score is near zero).
    """
    formula = load_naive_references()[name]
    probe = Probe(registry.get(name), causal)
    single, case = probe.build(32, tokens), probe.case(2, tokens, 32)
    double = copy.deepcopy(single).double()

    def gradients(compute: NaiveForward, mixer: Mixer, given: Case) -> list[Tensor]:
        x_BTD = given.x_BTD.clone().requires_grad_()
        y_BTD = compute(mixer, x_BTD, given.context)
        upstream = torch.linspace(-1, 1, y_BTD.numel(), dtype=torch.float64).to(y_BTD.dtype).view_as(y_BTD)
        return list(torch.autograd.grad((y_BTD * upstream).sum(), [x_BTD, *mixer.parameters()]))

    def kernel(mixer: Mixer, x_BTD: Tensor, context: Context) -> Tensor:
        out: Tensor = mixer(x_BTD, context)
        return out

    def errors(compute: NaiveForward, given: Case) -> list[float]:
        pairs = zip(
            gradients(compute, single, given), gradients(formula, double, given.map(Tensor.double)), strict=True
        )
        return [float((got - truth).abs().max() / truth.abs().max()) for got, truth in pairs]

    # one evaluation of the formula may round luckily: the largest of some at almost the same inputs
    nearby = [errors(formula, case.map(partial(torch.mul, other=1 + i / 1000))) for i in range(NEARBY)]
    for error, *of_formula in zip(errors(kernel, case), *nearby, strict=True):
        allowed = 4 * max(*of_formula, FP32)
        assert error <= allowed, f"off by {error:.2g}, the formula in fp32 by {max(of_formula):.2g}"
