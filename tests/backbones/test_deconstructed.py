"""Deconstructed attention: each variant removes exactly what it claims; sizes, states and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from backbones.mixers import registry
from backbones.mixers.base import Context, Mixer
from backbones.mixers.deconstructed.split_qk import FixedQK, RandomQK, StaticQK
from backbones.mixers.deconstructed.variants import QueryFree, QueryFreeConfig, Taylor
from backbones.mixers.errors import MixerError
from tests.backbones.naive.deconstructed import taylor

D = 32


def build(cls: type[Mixer], length: int = 16, **options: object) -> Mixer:
    torch.manual_seed(0)
    return cls(cls.Config.model_validate(options), D, length).double()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", ["taylor", "query-free", "random-qk", "fixed-qk", "static-qk"])
@pytest.mark.parametrize("dim", [64, 128, 384])
def test_each_has_exactly_four_d_squared_parameters(name: str, dim: int) -> None:
    cls = registry.get(name)
    assert cls.cost(cls.size(cls.Config(), dim, 196, 4 * dim**2), dim, 196).parameters == 4 * dim**2


@pytest.mark.parametrize("cls", [RandomQK, FixedQK])
@pytest.mark.parametrize("causal", [True, False])
def test_all_rows_are_mixed_by_the_one_map_of_the_constant_row(cls: type[Mixer], causal: bool) -> None:
    mixer, constant, context = build(cls, causal=causal), draw(1, 7, D), Context(constant_row=True)
    a, b = draw(1, 7, D, seed=2), draw(1, 7, D, seed=3)

    def mixed(x_1TD: Tensor) -> Tensor:
        return mixer(torch.cat([x_1TD, constant]), context)[:1]

    torch.testing.assert_close(mixed(a + 2 * b), mixed(a) + 2 * mixed(b))
    other = mixer(torch.cat([a, 2 * constant.flip(1)]), context)[:1]
    assert (other - mixed(a)).abs().max() > 1e-3, "the weights come from the constant row"


def test_the_constant_row_itself_is_mixed_as_by_softmax_attention() -> None:
    ours, softmax, x = build(FixedQK), build(registry.get("softmax")), draw(1, 7, D)
    softmax.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x, Context(constant_row=True)), softmax(x))


def test_static_scores_come_from_the_embeddings_and_values_from_the_input() -> None:
    mixer, softmax = build(StaticQK), build(registry.get("softmax"))
    softmax.load_state_dict(mixer.state_dict())
    x, e = draw(2, 7, D), draw(2, 7, D, seed=2)
    torch.testing.assert_close(mixer(x, Context(embedding_BTD=x)), softmax(x))
    torch.testing.assert_close(mixer(3 * x, Context(embedding_BTD=e)), 3 * mixer(x, Context(embedding_BTD=e)))


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (RandomQK, "random-qk and fixed-qk read a constant sequence"),
        (StaticQK, "static-qk reads the embeddings at layer 0"),
    ],
)
def test_a_missing_part_of_the_context_is_named(cls: type[Mixer], said: str) -> None:
    with pytest.raises(MixerError, match=said):
        build(cls)(draw(2, 7, D))


def test_query_free_weights_are_the_same_at_every_later_position() -> None:
    map_BHTT = build(QueryFree).attention_map(draw(2, 7, D)).detach()  # type: ignore[operator]
    for t in range(1, 7):
        torch.testing.assert_close(
            map_BHTT[:, :, t, :t] / map_BHTT[:, :, t, :1], map_BHTT[:, :, 6, :t] / map_BHTT[:, :, 6, :1]
        )


def test_query_free_logits_in_the_thousands_are_finite_and_accurate_in_fp32() -> None:
    mixer, x = build(QueryFree), 100 * draw(2, 16, D)
    logits, _ = mixer.logits(x, Context())  # type: ignore[operator]
    assert logits.abs().max() > 1e3
    exact = mixer(x)
    error = (mixer.float()(x.float()) - exact).abs().max()
    assert error <= 1e-3 * exact.abs().max()  # an fp32 logit of some thousands is accurate to 2e-4


def test_qk_norm_bounds_the_logits_of_query_free() -> None:
    mixer, x = build(QueryFree, qk_norm=True), 1e4 * draw(2, 16, D)
    logits, _ = mixer.logits(x, Context())  # type: ignore[operator]
    assert logits.abs().max() <= 8**0.5 + 1e-6, "|q| = |k| = √8, scaled by 1/√8"
    stated = QueryFree.cost(QueryFreeConfig(qk_norm=True), D, 16).parameters
    assert stated == sum(p.numel() for p in mixer.parameters()) == 4 * D**2 + 2 * 8
    state = mixer.init_state(2, 16)
    for t in range(16):
        y, state = mixer.step(x[:, t], state)
    torch.testing.assert_close(y, mixer(x)[:, -1])


def test_taylor_beyond_its_number_of_features_is_linear_in_cost_and_correct() -> None:
    """With d = 8 there are 45 features per head: at 64 tokens the sums are cheaper, and counted."""
    mixer, x = build(Taylor, length=64), draw(1, 64, D)
    torch.testing.assert_close(mixer(x), taylor(mixer, x, Context()), rtol=1e-9, atol=1e-10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        taylor(mixer, x, Context())
    stated = [Taylor.cost(mixer.config, D, length).flops for length in (64, 4096)]
    assert stated[0] == stated[1] == pytest.approx(counter.get_total_flops() / 64, rel=0.02)


def test_taylor_approaches_softmax_where_scores_are_small() -> None:
    ours, softmax, x = build(Taylor), build(registry.get("softmax")), draw(2, 9, D)
    softmax.load_state_dict(ours.state_dict())
    errors = []
    for scale in (0.5, 0.25):
        a, b = (m.attention_map(scale * x).detach() for m in (ours, softmax))  # type: ignore[operator]
        errors.append(float((a - b).abs().max()))
    assert errors[1] < errors[0] / 32, "the error is of third order in the scores, of sixth in the input"
