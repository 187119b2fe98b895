"""Mixers whose scores come from a constant sequence, an extra row in every backbone that no result contains."""

from __future__ import annotations

import pytest
import torch

import tasks
from backbones.mixers import registry
from backbones.mixers.errors import MixerError
from suite.models.resolve import resolve_run
from suite.training.attention_maps import attention_maps
from tests.backbones.small_models import BACKBONES, assert_steps_equal_forward, decoder

MIXERS = ("random-qk", "fixed-qk")
SMALL = ["dim=16", "model.heads=2", "depth=2", "ffn_width=40"]


def constant_for(model) -> torch.Tensor:
    model.set_constant(
        torch.randint(11, (12,)) if model.constant.dtype == torch.int64 else torch.randn(model.constant.shape)
    )
    return model.constant


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("name", BACKBONES)
def test_an_output_depends_on_the_constant_sequence_and_on_no_other_example(name, mixer):
    model, inputs = BACKBONES[name](mixer, "softmax")
    before = constant_for(model).clone()
    with torch.no_grad():
        whole, alone = model(inputs), model(inputs[1:2])
        assert whole.shape[0] == len(inputs)
        assert torch.allclose(whole[1:2], alone, rtol=0, atol=1e-10)
        constant_for(model)
        assert not torch.allclose(model(inputs), whole, rtol=0, atol=1e-9)
        model.constant.copy_(before)
        assert torch.equal(model(inputs), whole)


@pytest.mark.parametrize(
    "mixers", [("random-qk", "softmax"), ("softmax", "fixed-qk"), ("static-qk", "softmax"), ("query-free", "static-qk")]
)
def test_decoding_token_by_token_equals_forward(mixers):
    model = decoder(*mixers)
    if model.trunk.takes_constant_row:
        constant_for(model)
    assert_steps_equal_forward(model)


def built(task_name, mixer, seed=0, hybrid=None):
    made = resolve_run(task=task_name, mixer=mixer, scale="board", seed=seed, sets=SMALL, hybrid=hybrid)
    task = tasks.get(task_name)(made.config.data)
    task.load()
    plan, _ = made.candidate.check(made.config, task.spec)
    return made.candidate.build(made.config, task, plan), task


@pytest.mark.parametrize("task_name", ["sotu", "fashion-mnist", "household-power"])
@pytest.mark.slow
def test_a_random_sequence_follows_the_seed_and_a_fixed_one_is_a_training_example(task_name):
    first, again, other = (built(task_name, "random-qk", seed)[0].constant for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    (one, task), (two, _) = (built(task_name, "fixed-qk", seed) for seed in (0, 1))
    assert torch.equal(one.constant, two.constant)
    example = next(task.train_batches(0, 1)).inputs[0]
    if task_name == "household-power":
        example = (example[:, 0] - example[:, 0].mean()) / example[:, 0].std(correction=0)
    assert torch.allclose(one.constant, example.to(one.constant.dtype), atol=1e-3)


def test_maps_of_a_hybrid_show_the_examples_and_not_the_constant_sequence():
    model, task = built("sotu", "random-qk", hybrid="first")
    maps = attention_maps(model, task, torch.device("cpu"))
    assert {map_BHTT.shape[0] for map_BHTT in maps.values()} == {4}


@pytest.mark.parametrize("name", [n for n in registry.names() if registry.origin(n) == "built-in"])
def test_a_mixer_that_is_not_causal_does_not_decode(name):
    cls = registry.get(name)
    if not (cls.capabilities.bidirectional and cls.capabilities.mixes_tokens):
        return
    mixer = cls(cls.size(cls.Config(causal=False, heads=2), 32, 8, 4 * 32 * 32), 32, 8)
    with pytest.raises(MixerError, match="only a causal mixer decodes"):
        mixer.init_state(1, 8)
