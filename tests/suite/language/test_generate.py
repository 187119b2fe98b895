"""Text generation: decoding agrees with the model's forward pass, within its context and beyond it."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch

from suite.language.generate import _sample, generate, load_language_model
from suite.training.run import start
from tests.suite.tiny import tiny_config

CONTEXT = 16


@pytest.fixture
def trained(monkeypatch):
    """The id of a tiny trained language model."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    return start(tiny_config("sotu", "fem", "steps=2", "evals=1"), data_dir=None, device="cpu").record.id


def sample(
    model, prompt: torch.Tensor, tokens: int, *, temperature: float = 0.0, top_k: int = 0, seed: int = 0
) -> list[int]:
    random = torch.Generator().manual_seed(seed)
    return list(generate(model, prompt, tokens=tokens, temperature=temperature, top_k=top_k, generator=random))


def test_at_temperature_zero_every_token_is_the_argmax_of_the_forward_pass(trained):
    model, task = load_language_model(trained, torch.device("cpu"))
    prompt = torch.tensor(task.encode("Fel"))
    seen = prompt.tolist()
    for token in sample(model.double(), prompt, CONTEXT - len(prompt)):
        assert token == model(torch.tensor([seen]))[0, -1].argmax().item()
        seen.append(token)
    assert len(seen) == CONTEXT


def test_generation_continues_when_the_context_is_full(trained):
    model, task = load_language_model(trained, torch.device("cpu"))
    prompt = torch.tensor(task.encode("A prompt that is longer than the sixteen bytes of context"))
    assert len(sample(model, prompt, 3 * CONTEXT)) == 3 * CONTEXT


def test_samples_depend_on_the_seed_and_top_k(trained):
    model, task = load_language_model(trained, torch.device("cpu"))
    prompt = torch.tensor(task.encode("The "))
    one, again, other = (sample(model, prompt, 18, temperature=1.0, seed=s) for s in (1, 1, 2))
    assert one == again != other
    assert sample(model, prompt, 18, temperature=1.0, top_k=1) == sample(model, prompt, 18)


@pytest.mark.parametrize(("temperature", "top_k"), [(0.5, 0), (1.0, 0), (2.0, 2), (0.5, 9), (1.0, 1)])
def test_tokens_are_drawn_as_often_as_the_temperature_and_top_k_say(temperature, top_k):
    logits = [0.5, 2.0, -1.0, 1.0, 0.0]
    allowed = sorted(range(5), key=lambda token: -logits[token])[: top_k or None]
    weights = [math.exp(logits[token] / temperature) * (token in allowed) for token in range(5)]
    random = torch.Generator().manual_seed(0)
    drawn = Counter(_sample(torch.tensor(logits), temperature, top_k, random) for _ in range(3000))
    assert drawn.keys() <= set(allowed)
    assert [drawn[token] / 3000 for token in range(5)] == pytest.approx([w / sum(weights) for w in weights], abs=0.04)


def test_the_output_is_one_json_document_or_prompt_and_continuation(suite, trained):
    arguments = ("generate", trained, "--prompt", "My fellow ", "--tokens", "5", "--seed", "3")
    document = json.loads(suite(*arguments, "--json").out)
    assert document["seed"] == 3
    assert suite(*arguments).out == f"My fellow {document['text']}\n"


def test_a_run_that_is_not_a_language_model_is_refused_by_name(suite, monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    run = start(tiny_config("fashion-mnist", "softmax", "steps=1"), data_dir=None, device="cpu").record.id
    ended = suite("generate", run)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert run in ended.err
    assert "fashion-mnist" in ended.err
    assert "choose a run of a language task" in ended.err
