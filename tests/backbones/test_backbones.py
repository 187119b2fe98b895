"""The three backbones and their shared trunk: shapes, causality, normalisation, residuals, randomness, gradients."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor, nn

from backbones.base import Block, Layer, RMSNorm, SwiGLU, Trunk, TrunkConfig
from backbones.forecaster import Forecaster
from backbones.mixers import registry
from backbones.mixers.base import Context
from backbones.vit import VisionTransformer
from tests.backbones.small_models import BACKBONES, DIM, FFN, assert_steps_equal_forward, decoder, layer, ready, trunk


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


# --- shapes


@pytest.mark.parametrize("tokens", [1, 2, 11, 12])
def test_a_decoder_accepts_any_length_up_to_its_own(tokens):
    assert decoder("softmax", "fem")(torch.randint(11, (2, tokens))).shape == (2, tokens, 11)


def test_a_decoder_refuses_a_longer_text():
    with pytest.raises(ValueError, match=r"13 tokens .* at most 12"):
        decoder("softmax")(torch.randint(11, (2, 13)))


@pytest.mark.parametrize(
    "build", [lambda c: VisionTransformer(c, 1, 9, 9, 3, 5), lambda c: Forecaster(c, 40, 6, 1, 8, 4)]
)
def test_a_trunk_of_another_length_is_refused(build):
    with pytest.raises(ValueError, match="the trunk expects 12"):
        build(trunk("softmax", length=12, causal=False))


# --- which output depends on which input


@pytest.mark.parametrize("mixer", ["softmax", "fem", "no-mixing"])
def test_a_decoders_logits_do_not_depend_on_the_future(mixer):
    model = decoder(mixer, mixer)
    ids = torch.randint(11, (2, 12))
    before = model(ids)
    for t in (1, 6, 11):
        changed = ids.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 11
        after = model(changed)
        assert torch.allclose(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, t], before[:, t], rtol=0, atol=1e-6)
    if mixer != "no-mixing":
        changed = ids.clone()
        changed[:, 0] = (changed[:, 0] + 1) % 11
        assert not torch.allclose(model(changed)[:, -1], before[:, -1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mixers", [("softmax", "softmax"), ("fem", "softmax", "no-mixing")])
def test_decoding_token_by_token_equals_forward(mixers):
    assert_steps_equal_forward(decoder(*mixers))


def test_images_and_channels_do_not_see_each_other():
    model, images = BACKBONES["vit"]("softmax", "fem")
    assert torch.allclose(model(images)[:1], model(images[:1]), rtol=0, atol=1e-12)
    model, windows = BACKBONES["forecaster"]("softmax", "fem")
    changed = windows.clone()
    changed[:, :, 1] = torch.randn_like(changed[:, :, 1])
    before, after = model(windows), model(changed)
    assert torch.allclose(before[..., [0, 2]], after[..., [0, 2]], rtol=0, atol=1e-12)
    assert not torch.allclose(before[..., 1], after[..., 1], rtol=0, atol=1e-6)


def test_positions_distinguish_equal_tokens():
    model = decoder("no-mixing")
    logits = model(torch.full((1, 12), 3))
    assert not torch.allclose(logits[:, 0], logits[:, 1], rtol=0, atol=1e-9)


# --- the trunk


def test_a_block_equals_its_formula():
    block = Block(layer("no-mixing"), DIM, 12, 0.0, 0.0).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape))

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return torch.stack([row / math.sqrt(sum(v * v for v in row.tolist()) / DIM + 1e-6) * gain for row in x])

    x = torch.randn(4, DIM, dtype=torch.float64)
    h = x + block.mixer(norm(x, block.norm_mixer.weight)[None])[0]
    gate, up = block.ffn.gate_up.weight.split(FFN)
    n = norm(h, block.norm_ffn.weight)
    a = n @ gate.T
    expected = h + (a / (1 + torch.exp(-a)) * (n @ up.T)) @ block.ffn.down.weight.T
    assert torch.allclose(block(x[None], Context())[0], expected, rtol=0, atol=1e-10)


def test_layers_may_differ_in_mixer_and_width():
    layers = (layer("softmax"), Layer(registry.get("fem"), layer("fem").config, 32), layer("no-mixing"))
    model = ready(Trunk(TrunkConfig(DIM, 12, layers)))
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    assert [type(block.mixer) for block in blocks] == [registry.get(name) for name in ("softmax", "fem", "no-mixing")]
    assert [block.ffn.down.in_features for block in blocks] == [FFN, 32, FFN]
    assert model(torch.randn(2, 12, DIM, dtype=torch.float64)).shape == (2, 12, DIM)


def test_a_skipped_layer_equals_a_model_without_it():
    model = ready(Trunk(trunk("softmax", "fem", "no-mixing")))
    short = ready(Trunk(trunk("softmax", "no-mixing")))
    short.load_state_dict(
        {
            name.replace("blocks.2.", "blocks.1."): t
            for name, t in model.state_dict().items()
            if not name.startswith("blocks.1.")
        }
    )
    x = torch.randn(2, 12, DIM, dtype=torch.float64)
    with model.without({1}):
        assert torch.equal(model(x), short(x))
    assert not torch.allclose(model(x), short(x))


def test_padding_on_the_left_changes_nothing():
    model = ready(Trunk(trunk("softmax", "fem", causal=False)))
    with torch.no_grad():
        model.positions.zero_()  # a shift moves tokens to other positions
    x = torch.randn(2, 7, DIM, dtype=torch.float64)
    padded = torch.cat([torch.randn(2, 3, DIM, dtype=torch.float64), x], 1)
    mask = torch.arange(10) >= 3
    assert torch.allclose(model(padded, mask_BT=mask.expand(2, 10))[:, 3:], model(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("noise", [{"drop_path": 0.5}, {"dropout": 0.5}], ids=["drop_path", "dropout"])
def test_noise_is_drawn_in_training_only(name, noise):
    model, x = BACKBONES[name]("softmax", "softmax", **noise)
    quiet, _ = BACKBONES[name]("softmax", "softmax")
    quiet.load_state_dict(model.state_dict())
    assert torch.equal(model(x), quiet(x))
    model.train()
    torch.manual_seed(1)
    one, two = model(x), model(x)
    assert not torch.allclose(one, two)
    torch.manual_seed(1)
    assert torch.equal(model(x), one)  # from torch's generator alone: what a checkpoint saves


@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_input_gives_the_same_bits_at_any_memory_address(name):
    """Products may round differently by the address of their operands, and a resumed run has to give the same bits."""
    model, x = BACKBONES[name]("softmax", "fem")
    first, held, draw = model(x), [], random.Random(0)
    for _ in range(60):
        held.append(bytearray(draw.randrange(1, 5000)))  # moves what is allocated next
        if len(held) > 50:
            held.pop(draw.randrange(50))
        assert torch.equal(model(x), first)


def test_stochastic_depth_rises_linearly_from_the_first_layer_to_the_last():
    model = ready(Trunk(trunk("softmax", "softmax", "softmax", drop_path=0.6)))
    rates = [
        getattr(block.drop[1], "drop_prob", 0.0) if isinstance(block.drop, nn.Sequential) else 0.0
        for block in model.blocks
    ]
    assert rates == pytest.approx([0.0, 0.3, 0.6])
    model = ready(Trunk(trunk("softmax", "softmax", drop_path=1 - 1e-9)))
    x = torch.randn(2, 12, DIM, dtype=torch.float64)
    with model.without({1}):
        expected = model(x)
    model.train()
    assert torch.equal(model(x), expected)


# --- parameters


@pytest.mark.parametrize("name", BACKBONES)
def test_reset_draws_every_parameter_and_equal_seeds_give_equal_ones(name):
    model, _ = BACKBONES[name]("softmax", "fem")
    drawn = []
    for seed in (7, 7, 8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(math.nan)
        torch.manual_seed(seed)
        model.reset_parameters()
        drawn.append({n: p.detach().clone() for n, p in model.named_parameters()})
    assert all(p.isfinite().all() for values in drawn for p in values.values())
    assert all(torch.equal(drawn[0][n], drawn[1][n]) for n in drawn[0])
    assert any(not torch.equal(drawn[0][n], drawn[2][n]) for n in drawn[0])


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_initial_weights_of_the_trunk_have_the_documented_deviations(depth):
    """Those of the residual outputs shrink with depth, so that a deep trunk begins as a shallow one."""
    dim, width, length = 64, 160, 128
    same = Layer(registry.get("no-mixing"), layer("no-mixing").config, width)
    model = Trunk(TrunkConfig(dim, length, (same,) * depth))
    model.reset_parameters()
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    expected: dict[float, list[Tensor]] = {
        (2 * depth * width) ** -0.5: [block.ffn.down.weight for block in blocks],
        dim**-0.5: [block.ffn.gate_up.weight for block in blocks],
        0.02: [model.positions],
    }
    for deviation, weights in expected.items():
        for weight in weights:
            assert float(weight.detach().std()) == pytest.approx(deviation, rel=0.05)
            assert abs(float(weight.detach().mean())) < 0.05 * deviation
    gains = [block.norm_ffn.weight for block in blocks] + [block.norm_mixer.weight for block in blocks]
    assert all(torch.equal(gain, torch.ones(dim)) for gain in gains)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(
    "mixers", [("softmax", "softmax"), ("fem", "fem"), ("no-mixing", "softmax", "fem")], ids="-".join
)
def test_every_parameter_gets_a_gradient(name, mixers):
    model, x = BACKBONES[name](*mixers)
    y = model(x)
    (y * torch.randn_like(y)).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not silent


@pytest.mark.parametrize("name", BACKBONES)
def test_initial_weights_give_outputs_of_a_moderate_size(name):
    model, x = BACKBONES[name](*("softmax",) * 8)
    model.reset_parameters()
    y = model(x)
    assert 1e-3 < y.std() < 10


def test_norm_and_feed_forward_have_the_documented_parameters():
    assert sum(p.numel() for p in SwiGLU(DIM, FFN).parameters()) == 3 * DIM * FFN
    assert sum(p.numel() for p in RMSNorm(DIM).parameters()) == DIM
