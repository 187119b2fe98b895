"""The indicators on maps where they are known, and the maps of the mixers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.indicators import ShowsMap, indicators
from backbones.mixers import registry
from backbones.mixers.base import Context

#: No map, or rows that are not weights.
WITHOUT_A_MAP = {
    "no-mixing",
    "hypermlp",
    "hyperglu",
    "mamba2",
    "mlstm",
    "deltanet",
    "gated-deltanet",
    "kda",
    "rwkv7",
    "gla-layer",
    "retnet",
}


def test_a_uniform_causal_map_has_the_indicators_computed_by_hand() -> None:
    T = 5
    uniform = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]
    found = indicators(uniform.expand(3, 2, T, T))
    rows = range(1, T + 1)
    assert found.entropy.tolist() == pytest.approx([sum(math.log(n) for n in rows) / T] * 2)
    assert found.concentration.tolist() == pytest.approx([math.sqrt(sum(1 / n for n in rows))] * 2)
    assert found.first_token_sink.tolist() == pytest.approx([sum(1 / n for n in (2, 3, 4, 5)) / 4] * 2)
    for o in range(4):
        assert found.local_focus[:, o].tolist() == pytest.approx([sum(1 / n for n in rows if n > o) / (T - o)] * 2)
    assert found.diversity.tolist() == pytest.approx([0.0, 0.0])


def test_each_indicator_detects_its_pattern() -> None:
    T = 6
    itself, previous, first = torch.eye(T), torch.eye(T).roll(-1, 1).tril(), torch.zeros(T, T)
    previous[0, 0], first[:, 0] = 1.0, 1.0
    found = indicators(torch.stack([itself, previous, first])[None])
    assert found.entropy.tolist() == [0.0, 0.0, 0.0]
    assert found.concentration.tolist() == pytest.approx([math.sqrt(T)] * 3)
    assert found.local_focus[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert found.local_focus[1, 1] == 1.0
    assert found.first_token_sink.tolist() == pytest.approx([0.0, 1 / (T - 1), 1.0])
    assert found.diversity[0] == pytest.approx(1 - (1 / T + 1 / T) / 2)
    assert dict(found.figures())["local_focus1/head1"] == 1.0


@settings(max_examples=30, deadline=None, derandomize=True)
@given(tokens=st.integers(1, 9), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_indicators_stay_in_their_ranges(tokens: int, heads: int, seed: int) -> None:
    scores = 5 * torch.randn(2, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    found = indicators(scores.softmax(-1))
    assert bool(((found.entropy >= 0) & (found.entropy <= math.log(tokens) + 1e-6)).all())
    assert bool(((found.concentration >= 1 - 1e-6) & (found.concentration <= math.sqrt(tokens) + 1e-6)).all())
    assert bool(((found.diversity >= -1e-6) & (found.diversity <= 1 + 1e-6)).all())
    assert all(math.isfinite(value) for _, value in found.figures())


@pytest.mark.parametrize(
    "name", [n for n in registry.names() if registry.origin(n) == "built-in" and n not in WITHOUT_A_MAP]
)
@pytest.mark.parametrize("causal", [True, False])
def test_a_mixers_map_is_a_distribution_over_what_it_sees(
    name: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backbones.mixers.priors.base.MAP_COLUMNS", 4)  # two parts, the second one shorter
    cls = registry.get(name)
    torch.manual_seed(0)
    mixer = cls(cls.size(cls.Config(causal=causal), 32, 16, 4 * 32**2), 32, 16).double()
    x_BTD = torch.randn(2, 6, 32, dtype=torch.float64)
    mask_BT = torch.ones(2, 6, dtype=torch.bool)
    mask_BT[0, :2] = False
    for mask in (None, mask_BT):
        context = Context(mask_BT=mask, embedding_BTD=x_BTD, constant_row="constant row" in cls.capabilities.needs)
        assert isinstance(mixer, ShowsMap)
        map_BHTT = mixer.attention_map(x_BTD, context).detach()
        real = torch.ones(2, 6, dtype=torch.bool) if mask is None else mask
        assert map_BHTT.shape[::2] == (2, 6)
        assert bool((map_BHTT >= 0).all())
        rows = map_BHTT.sum(-1).transpose(1, 2)[real]
        if name == "sink":  # which takes a part
            assert bool(((rows > 0) & (rows < 1)).all())
        else:
            torch.testing.assert_close(rows, torch.ones_like(rows))
        hidden = ~real[:, None, None] | (
            torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else torch.zeros(6, 6, dtype=torch.bool)
        )
        assert float((map_BHTT * hidden)[real[:, None].expand(-1, map_BHTT.shape[1], -1)].abs().max()) == 0.0


@pytest.mark.parametrize("name", ["softmax", "query-free", "random-qk", "taylor", "qk-norm", "linear"])
def test_the_map_times_the_values_is_the_output(name: str) -> None:
    """With W_o = 1 and values of one head at a time, the output is the map times the values."""
    cls = registry.get(name)
    torch.manual_seed(0)
    mixer = cls(cls.size(cls.Config(heads=1), 8, 16, 4 * 8**2), 8, 16).double()
    x_BTD = torch.randn(2, 6, 8, dtype=torch.float64)
    context = Context(constant_row="constant row" in cls.capabilities.needs)
    mixer.get_parameter("out_proj.weight").data.copy_(torch.eye(8))
    v_BTD = x_BTD @ mixer.get_parameter("in_proj.weight")[-8:].T
    assert isinstance(mixer, ShowsMap)
    map_BTT = mixer.attention_map(x_BTD, context)[:, 0]
    torch.testing.assert_close(mixer(x_BTD, context), map_BTT @ v_BTD)
