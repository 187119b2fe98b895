"""Canon layers as an option of the backbone: the convolution's formula, causality, decoding, and the `canon` mixer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from backbones.base import Block, Layer, Trunk, TrunkConfig
from backbones.canon import CanonLayers, canon_cost
from backbones.decoder import Decoder
from backbones.mixers import registry
from backbones.mixers.attention.canon import CanonAttention, CanonConfig
from backbones.mixers.base import Context
from backbones.mixers.priors.softmax import Softmax
from tests.backbones.small_models import DIM, FFN, HEADS, assert_steps_equal_forward, layer, ready

T = 12
BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
CAUSAL = [name for name in BUILT_IN if registry.get(name).capabilities.causal]
BIDIRECTIONAL = [name for name in BUILT_IN if registry.get(name).capabilities.bidirectional]
PLACES: tuple[Literal["A", "C", "AC"], ...] = ("A", "C", "AC")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def convolved(x_BTD: Tensor, taps_JD: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """x + conv(x), one number after the other."""
    y = x_BTD.clone()
    tokens = x_BTD.shape[1]
    for b in range(len(x_BTD)):
        for t in range(tokens):
            for j in range(4):
                for at in {t - j} if causal else {t - j, t + j}:
                    if 0 <= at < tokens and (mask_BT is None or mask_BT[b, at]):
                        y[b, t] += taps_JD[j] * x_BTD[b, at]
    return y


def config(name: str, places: Any, causal: bool = True, layers: int = 2) -> TrunkConfig:
    """A trunk of equal layers; 7 D² per mixer, so that every mixer has a size."""
    mixer = registry.get(name)
    options = mixer.size(mixer.Config(causal=causal, heads=HEADS), DIM, T, 7 * DIM**2)
    return TrunkConfig(DIM, T, (Layer(mixer, options, FFN, places),) * layers)


def decoder(name: str, places: Any) -> Decoder:
    model = ready(Decoder(config(name, places), vocab=11))
    if model.trunk.takes_constant_row:
        model.set_constant(torch.arange(T) % 11)
    return model


def padding(tokens: int) -> Tensor:
    """Two rows; the second has three padded tokens on the left."""
    return torch.stack([torch.ones(tokens, dtype=torch.bool), torch.arange(tokens) >= 3])


# --- the convolution


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 9])
def test_a_canon_layer_is_its_formula(causal: bool, tokens: int) -> None:
    canon = CanonLayers("A", 5, causal).double()
    x = torch.randn(2, tokens, 5, dtype=torch.float64)
    assert torch.allclose(canon(x, "A"), convolved(x, canon.taps["A"].detach(), causal), rtol=0, atol=1e-14)
    assert canon(x, "C") is x


@pytest.mark.parametrize("causal", [True, False])
def test_padded_tokens_count_as_zero_in_a_convolution(causal: bool) -> None:
    canon = CanonLayers("C", 5, causal).double()
    x, mask = torch.randn(2, 9, 5, dtype=torch.float64), padding(9)
    got, expected = canon(x, "C", mask), convolved(x, canon.taps["C"].detach(), causal, mask)
    assert torch.allclose(got[mask], expected[mask], rtol=0, atol=1e-14)


@pytest.mark.parametrize("places", ["none", *PLACES])
def test_a_block_reads_the_convolved_inputs_at_its_places(places: Any) -> None:
    block = Block(replace(layer("no-mixing"), canon=places), DIM, T, 0.0, 0.0).double()
    x, causal, none = torch.randn(2, T, DIM, dtype=torch.float64), True, torch.zeros(4, DIM, dtype=torch.float64)
    taps_a, taps_c = (block.canon.taps[place].detach() if place in places else none for place in "AC")
    with torch.no_grad():
        h = x + block.mixer(convolved(block.norm_mixer(x), taps_a, causal))
        expected = h + block.ffn(convolved(block.norm_ffn(h), taps_c, causal))
        assert torch.allclose(block(x, Context()), expected, rtol=0, atol=1e-12)


def test_taps_are_drawn_from_plus_minus_a_half_and_get_gradients() -> None:
    model = Trunk(TrunkConfig(DIM, T, (replace(layer(), canon="AC"),) * 8))
    model.reset_parameters()
    taps = {name: p for name, p in model.named_parameters() if ".canon." in name}
    assert sorted(taps) == sorted(f"blocks.{i}.canon.taps.{place}" for i in range(8) for place in "AC")
    drawn = torch.cat([p.detach().flatten() for p in taps.values()])
    assert 0.48 < float(drawn.abs().max()) <= 0.5
    assert float(drawn.std()) == pytest.approx(1 / 12**0.5, rel=0.05)
    model(torch.randn(2, T, DIM)).square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any(1).all()) for p in taps.values())


def test_a_backbone_without_convolutions_has_the_same_parameters_and_bits_as_ever() -> None:
    plain, other = Trunk(config("softmax", "none")), Trunk(config("softmax", "AC"))
    assert not any("canon" in name for name in plain.state_dict())
    states = []
    for model in (plain, other):
        torch.manual_seed(3)
        model.reset_parameters()
        states.append({name: p for name, p in model.state_dict().items() if "blocks.1." not in name})
    kept = states[0].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in kept)  # the first block is drawn as before
    for block in other.blocks:
        assert isinstance(block, Block)
        torch.nn.init.zeros_(block.canon.taps["A"])
        torch.nn.init.zeros_(block.canon.taps["C"])
    plain.load_state_dict(other.state_dict(), strict=False)
    x = torch.randn(2, T, DIM)
    assert torch.equal(plain(x), other(x))


# --- the same as the mixer `canon`


def softmax_and_canon(causal: bool) -> tuple[Block, Block]:
    """Softmax in a backbone with `canon="A"`, and the mixer `canon` with places="A", of the same parameters."""
    options: dict[str, Any] = {"causal": causal, "heads": HEADS}
    ours = Block(Layer(Softmax, Softmax.Config(**options), FFN, "A"), DIM, T, 0.0, 0.0).double()
    theirs = Block(Layer(CanonAttention, CanonConfig(places="A", **options), FFN), DIM, T, 0.0, 0.0).double()
    ours.load_state_dict(
        {name.replace("mixer.taps_a", "canon.taps.A"): value for name, value in theirs.state_dict().items()}
    )
    return ours, theirs


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("mask", [None, padding(T)], ids=["whole", "padded"])
def test_softmax_with_canon_a_equals_the_canon_mixer(causal: bool, mask: Tensor | None) -> None:
    ours, theirs = softmax_and_canon(causal)
    x = torch.randn(2, T, DIM, dtype=torch.float64, requires_grad=True)
    context, real = Context(mask_BT=mask), padding(T) if mask is not None else torch.ones(2, T, dtype=torch.bool)
    y, wanted = ours(x, context)[real], theirs(x, context)[real]
    assert torch.allclose(y, wanted, rtol=0, atol=1e-12)
    gradients = [
        torch.autograd.grad(z.square().sum(), [x, taps]) for z, taps in ((y, a_taps(ours)), (wanted, a_taps(theirs)))
    ]
    assert all(torch.allclose(g, h, rtol=1e-10, atol=1e-10) for g, h in zip(*gradients, strict=True))


def a_taps(block: Block) -> Tensor:
    return next(p for name, p in block.named_parameters() if name in ("canon.taps.A", "mixer.taps_a"))


def test_softmax_with_canon_a_decodes_and_costs_as_the_canon_mixer() -> None:
    ours, theirs = softmax_and_canon(causal=True)
    x, states = torch.randn(T, 2, DIM, dtype=torch.float64), [block.init_state(2, T) for block in (ours, theirs)]
    with torch.no_grad():
        for token in x:
            outputs = []
            for i, block in enumerate((ours, theirs)):
                y, states[i] = block.step(token, states[i], Context())
                outputs.append(y)
            assert torch.allclose(outputs[0], outputs[1], rtol=0, atol=1e-12)
    assert states[0].bytes() == states[1].bytes()
    mixer, own = (type(block.mixer).cost(block.mixer.config, DIM, T) for block in (theirs, ours))
    added = canon_cost("A", DIM, causal=True)
    assert mixer.parameters == own.parameters + added.parameters
    assert mixer.state_bytes == own.state_bytes + added.state_bytes


# --- any mixer


@pytest.mark.parametrize("places", ["A", "AC"])
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_the_future_changes_no_bit_of_the_past(name: str, places: str) -> None:
    model, ids = decoder(name, places), torch.randint(11, (2, T))
    before = model(ids)
    assert before.shape == (2, T, 11)
    assert bool(before.isfinite().all())
    for t in (1, 5, T - 1):
        changed = ids.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 11
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.allclose(after[:, t], before[:, t], rtol=0, atol=1e-6)


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", CAUSAL)
def test_decoding_equals_forward_with_every_mixer(name: str, places: str) -> None:
    assert_steps_equal_forward(decoder(name, places))


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_the_state_grows_by_the_declared_bytes(name: str) -> None:
    plain, more = (Trunk(config(name, places)) for places in ("none", "AC"))
    rows = 2 if plain.takes_constant_row else 1  # the constant row is decoded as well
    given = torch.randn(1, DIM), torch.randn(DIM) if plain.takes_constant_row else None

    def size(model: Trunk) -> int:
        model.reset_parameters()
        states = model.init_state(1, T)
        for _ in range(5):
            _, states = model.step(given[0], states, given[1])
        return sum(state.bytes() for state in states)

    declared = canon_cost("AC", DIM, causal=True).state_bytes
    assert size(more) - size(plain) == 2 * rows * declared  # of two layers
    assert declared == 2 * 3 * DIM * 4


@pytest.mark.parametrize("name", BIDIRECTIONAL)
@torch.no_grad()
def test_not_causal_every_token_sees_both_of_its_neighbours(name: str) -> None:
    model = ready(Trunk(config(name, "A", causal=False, layers=1)))
    x = torch.randn(2, T, DIM, dtype=torch.float64)
    constant = torch.randn(T, DIM, dtype=torch.float64) if model.takes_constant_row else None
    before = model(x, constant)
    assert bool(before.isfinite().all())
    for t in (0, 5, T - 1):
        changed = x.clone()
        changed[:, t] += 1.0
        moved = (model(changed, constant) - before).abs().amax((0, 2)) > 1e-9
        assert bool(moved[max(t - 3, 0) : t + 4].all())
        assert registry.get(name).capabilities.mixes_tokens or int(moved.sum()) == len(moved[max(t - 3, 0) : t + 4])


@pytest.mark.parametrize("name", ["softmax", "fem", "deltanet", "mamba2"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_on_the_left_changes_nothing_with_convolutions(name: str, causal: bool) -> None:
    model = ready(Trunk(config(name, "AC", causal=causal)))
    torch.nn.init.zeros_(model.positions)  # a shift moves tokens to other positions
    x = torch.randn(2, 7, DIM, dtype=torch.float64)
    padded = torch.cat([torch.randn(2, 3, DIM, dtype=torch.float64), x], 1)
    mask = (torch.arange(10) >= 3).expand(2, 10)
    with torch.no_grad():
        assert torch.allclose(model(padded, mask_BT=mask)[:, 3:], model(x), rtol=0, atol=1e-10)
