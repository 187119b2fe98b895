"""What gated, forgetting, exclusive and sink attention, shared heads and Canon layers add to softmax attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.base import Layer, Trunk, TrunkConfig
from backbones.mixers import build, registry
from backbones.mixers.base import Context
from backbones.mixers.errors import MixerError
from tests.tolerances import FP32, FP64

D, T = 32, 40
VARIANTS = ("gated-attention", "differential", "canon", "fox", "fem-fox", "xsa", "sink", "gqa", "swa")


def pair(name: str, causal: bool = True, **options: Any) -> tuple[Any, Any, Tensor]:
    """The mixer, softmax attention with its matrices where they are as wide, and an input, in fp64."""
    torch.manual_seed(0)
    mixer, softmax = (build(each, D, T, causal=causal, **more) for each, more in ((name, options), ("softmax", {})))
    with torch.no_grad():
        for key, weight in softmax.named_parameters():
            other = dict(mixer.named_parameters())[key]
            if len(other) >= len(weight) and other.shape[1] == weight.shape[1]:
                weight.copy_(other[: weight.shape[0]])
    return mixer.double(), softmax.double(), torch.randn(2, T, D, dtype=torch.float64)


def close(got: Tensor, wanted: Tensor, fraction: float = FP64) -> bool:
    return float((got - wanted).detach().abs().max()) <= fraction * float(wanted.detach().abs().max())


@pytest.mark.parametrize("causal", [True, False])
def test_gates_of_zero_weights_give_half_of_softmax_attention(causal: bool) -> None:
    mixer, softmax, x = pair("gated-attention", causal)
    torch.nn.init.zeros_(mixer.gate_proj.weight)
    assert close(mixer(x), softmax(x) / 2)


def test_the_gate_reads_the_layers_input_and_acts_before_the_output_projection() -> None:
    mixer, softmax, x = pair("gated-attention")
    heads = softmax.config.heads
    with torch.no_grad():
        open_heads = [h % 2 for h in range(heads)]
        mixer.gate_proj.weight.copy_(1e3 * (2 * torch.tensor(open_heads, dtype=torch.float64) - 1)[:, None] * x[0, -1])
        softmax.out_proj.weight.mul_(torch.tensor(open_heads, dtype=torch.float64).repeat_interleave(D // heads))
        assert close(mixer(x)[0, -1], softmax(x)[0, -1])


def test_the_element_wise_gate_narrows_the_heads_so_that_the_layer_costs_4d2() -> None:
    mixer: Any = build("gated-attention", 128, 16, gate="element")
    assert mixer.out_proj.weight.shape == (128, 104)  # 0.8 · 128, in even widths per head
    assert abs(sum(p.numel() for p in mixer.parameters()) / (4 * 128**2) - 1) < 0.05


@pytest.mark.parametrize(
    "name", ["differential", "xsa", "fox", "sink", "gqa", "canon", "gated-attention", "swa", "fem-fox"]
)
@pytest.mark.parametrize("dim", [64, 96, 128, 256])
def test_every_variant_has_the_budget_of_softmax_attention(name: str, dim: int) -> None:
    mixer: Any = build(name, dim, 16, heads=2 if dim == 64 else 4)
    assert abs(sum(p.numel() for p in mixer.parameters()) / (4 * dim**2) - 1) < 0.05


@pytest.mark.parametrize(("name", "options"), [("differential", {"variant": "v2"}), ("fox", {"pro": True})])
@pytest.mark.parametrize("dim", [64, 96, 128, 192])
def test_every_option_keeps_the_budget_of_softmax_attention(name: str, options: dict[str, Any], dim: int) -> None:
    mixer: Any = build(name, dim, 16, heads=2 if dim == 64 else 4, **options)
    assert abs(sum(p.numel() for p in mixer.parameters()) / (4 * dim**2) - 1) < 0.05


def test_exclusive_attention_starts_as_softmax_attention() -> None:
    mixer, softmax, x = pair("xsa")
    assert close(mixer(x), softmax(x))


def test_exclusive_attention_at_large_alpha_reads_nothing_along_its_own_value() -> None:
    mixer, _, x = pair("xsa")
    torch.nn.init.constant_(mixer.alpha, 40.0)
    y, v = torch.randn(2, 1, 4, 8, dtype=torch.float64), torch.randn(2, 1, 4, 8, dtype=torch.float64)
    assert float((mixer.finish(y, v, x) * v).sum(-1).detach().abs().max()) < 1e-12
    assert bool(mixer.finish(y, torch.zeros_like(v), x).isfinite().all())


@pytest.mark.parametrize("causal", [True, False])
def test_a_faint_sink_is_softmax_attention_and_a_large_one_takes_everything(causal: bool) -> None:
    mixer, softmax, x = pair("sink", causal)
    torch.nn.init.constant_(mixer.sink, -80.0)
    assert close(mixer(x), softmax(x))
    torch.nn.init.constant_(mixer.sink, 80.0)
    assert float(mixer(x).detach().abs().max()) < 1e-20


def test_the_map_of_a_sink_misses_what_the_sink_takes() -> None:
    mixer, softmax, x = pair("sink")
    torch.nn.init.constant_(mixer.sink, 1.0)
    shown = mixer.attention_map(x)
    first = shown[:, :, 0, 0]  # of one key: e^s / (e^s + e^1)
    scores = mixer.rotated(x, Context())
    logit = (scores[0][:, 0] * scores[1][:, 0]).sum(-1) * mixer.width**-0.5
    assert close(first, torch.sigmoid(logit - 1.0))
    assert float(shown.sum(-1).detach().max()) < 1
    kept = shown / shown.sum(-1, keepdim=True)
    assert close(kept, softmax.attention_map(x))


def test_forgetting_nothing_is_attention_without_positions() -> None:
    mixer, _, x = pair("fox")
    torch.nn.init.constant_(mixer.prior.b_f, 1e3)
    y = mixer(x)
    late = torch.cat((x[:, -1:], x[:, :-1][:, torch.randperm(T - 1)], x[:, -1:]), dim=1)[:, 1:]
    assert close(mixer(late)[:, -1], y[:, -1])  # the order of the past is not seen


def test_a_gate_is_not_applied_to_its_own_token() -> None:
    mixer, _, x = pair("fox")
    torch.nn.init.constant_(mixer.prior.b_f, -1e4)  # everything before a token is forgotten
    v = mixer._project(x)[1]
    assert close(mixer(x), mixer.out_proj(v.flatten(2)))


@pytest.mark.parametrize("tokens", [1024, 4096])
def test_decays_keep_their_digits_over_long_sequences_in_fp32(tokens: int) -> None:
    """The summed log-gates reach thousands, where fp32 has three digits after the point."""
    torch.manual_seed(0)
    mixer: Any = build("fox", D, tokens)
    x = torch.randn(1, tokens, D)
    keys, v = mixer._project(x)
    weights = mixer.prior.prepare(x, keys, Context())
    assert float(weights.log_f_BTH.detach().sum(1).min()) < -0.6 * tokens
    double = replace(weights, **{name: getattr(weights, name).double() for name in ("q_BTHk", "k_BTHk", "log_f_BTH")})
    assert close(mixer.prior.read(weights, v).double(), mixer.prior.read(double, v.double()), FP32)


def test_shared_heads_have_a_smaller_cache_and_must_divide_the_heads() -> None:
    mixer: Any = build("gqa", 64, 128, heads=4, group=4)
    softmax = registry.get("softmax")
    config = softmax.Config(heads=4)
    assert type(mixer).cost(mixer.config, 64, 128).state_bytes < 0.5 * softmax.cost(config, 64, 128).state_bytes
    with pytest.raises(MixerError, match="group=3 does not divide the number of heads, 4"):
        build("gqa", 64, 128, heads=4, group=3)


@pytest.mark.parametrize(("dim", "places"), [(48, "A"), (64, "B"), (96, "AB")])
def test_canon_takes_the_convolutions_that_the_budget_allows(dim: int, places: str) -> None:
    solved: Any = build("canon", dim, 16, heads=2)
    given: Any = build("canon", dim, 16, heads=2, places="A")
    assert (solved.config.places, given.config.places) == (places, "A")


def test_a_canon_layer_with_taps_of_zero_is_softmax_attention() -> None:
    mixer, softmax, x = pair("canon")
    for taps in (mixer.taps_a, mixer.taps_b):
        if taps is not None:
            torch.nn.init.zeros_(taps)
    assert close(mixer(x), softmax(x))


def test_a_window_as_long_as_the_sequence_is_softmax_attention() -> None:
    mixer, softmax, x = pair("swa", window=T)
    assert close(mixer(x), softmax(x))


def test_a_token_outside_of_the_window_changes_nothing_and_one_inside_does() -> None:
    mixer, _, x = pair("swa", window=8)
    other = x.clone()
    other[:, 10] += 1.0
    changed = (mixer(other) - mixer(x)).detach().abs().amax((0, 2)) > 0
    assert changed.nonzero()[:, 0].tolist() == list(range(10, 18))


def test_the_state_of_a_window_does_not_grow_beyond_it() -> None:
    mixer, _, _ = pair("swa", window=8)
    assert mixer.init_state(1, 1000).tensors["k_BTHd"].shape[1] == 8


def test_a_differential_layer_depends_on_its_place_in_the_backbone() -> None:
    layers = tuple(Layer(registry.get("differential"), registry.get("differential").Config(heads=2), 32) for _ in "123")
    trunk: Any = Trunk(TrunkConfig(dim=D, length=T, layers=layers))
    assert [block.mixer.layer_index for block in trunk.blocks] == [0, 1, 2]
    x, outputs = torch.randn(1, 5, D), []
    for layer in (0, 2):
        mixer = trunk.blocks[layer].mixer
        mixer.load_state_dict(trunk.blocks[0].mixer.state_dict())
        outputs.append(mixer(x))
    assert not torch.allclose(*outputs)


def test_a_differential_layer_subtracts_nothing_where_both_maps_of_a_pair_are_equal() -> None:
    """(1 − λ) of one map, which the norm takes away but for its sign."""
    mixer, _, x = pair("differential")
    width = D // 4
    with torch.no_grad():
        rows = mixer.in_proj.weight[: 2 * D].unflatten(0, (2, 2, 2, width))
        rows[:, :, 1] = rows[:, :, 0]
    y = mixer.read(*mixer.rotated(x, Context()), Context())
    assert close(y[:, :, 0], y[:, :, 1])
    y = 1e6 * y  # far above the norm's eps
    normed = torch.nn.functional.rms_norm(y[:, :, ::2], (2 * width,), eps=0.0)
    assert close(mixer.finish(y, y, x).abs(), 0.8 * normed.abs(), 1e-9)


@pytest.mark.parametrize("causal", [True, False])
def test_a_pair_with_equal_queries_leaves_a_fraction_of_one_map_in_v2(causal: bool) -> None:
    """Both maps of a pair read the same keys and values, so that 1 − σ(W_λ x) of the read is left."""
    mixer, _, x = pair("differential", causal, variant="v2")
    heads, width = 4, D // 4
    with torch.no_grad():
        queries = mixer.in_proj.weight[: 2 * D].unflatten(0, (heads, 2, width))
        queries[:, 1] = queries[:, 0]
        read = mixer.read(*mixer.rotated(x, Context()), Context())[:, :, ::2]
        left = 1 - torch.sigmoid(x @ mixer.lambda_proj.weight.T)
        assert close(mixer(x), mixer.merge(left[..., None] * read))


def test_v2_does_not_depend_on_its_place_and_keeps_half_of_the_state() -> None:
    mixer, softmax, x = pair("differential", variant="v2")
    before = mixer(x)
    mixer.layer_index = 5
    assert torch.equal(mixer(x), before)
    assert 2 * mixer.init_state(1, T).bytes() == softmax.init_state(1, T).bytes()


@pytest.mark.parametrize("causal", [True, False])
def test_the_pro_block_does_not_see_the_size_of_queries_keys_and_values(causal: bool) -> None:
    mixer, _, x = pair("fox", causal, pro=True)
    E = mixer.widths.values
    before = mixer(x)
    with torch.no_grad():
        for part, factor in ((slice(0, E), 1e3), (slice(E, 2 * E), 1e4), (slice(2 * E + 4, None), 1e5)):
            mixer.in_proj.weight[part] *= factor
    assert close(mixer(x), before, 1e-4)  # up to the norms' eps of 1e-6


def test_a_pro_block_that_forgets_everything_reads_its_own_shifted_value() -> None:
    mixer, _, x = pair("fox", pro=True)
    torch.nn.init.constant_(mixer.prior.b_f, -1e4)
    with torch.no_grad():
        v = mixer._project(x)[1]
        alpha = torch.sigmoid(x @ mixer.pro.shift_proj.weight[4:].T)[..., None]  # after those of the keys
        before = torch.cat((torch.zeros_like(v[:, :1]), v[:, :-1]), dim=1)
        read = (1 - alpha) * v + alpha * before
        normed = read / (read.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        gates = torch.sigmoid(x @ mixer.pro.gate_proj.weight.T)
        assert close(mixer(x), (gates * normed.flatten(2)) @ mixer.out_proj.weight.T)
