"""Text from a trained language model: what decoding writes is what the model says, within its context and beyond it."""

from __future__ import annotations

import json

import pytest
import torch

from suite.language.generate import generate, load_language_model
from suite.training.run import start
from tests.suite.tiny import tiny_config

CONTEXT = 16


@pytest.fixture
def trained(monkeypatch):
    """The id of a tiny trained language model."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    return start(tiny_config("sotu", "fem", "steps=2", "evals=1"), data_dir=None, device="cpu").record.id


def write(
    model, prompt: torch.Tensor, tokens: int, *, temperature: float = 0.0, top_k: int = 0, seed: int = 0
) -> list[int]:
    random = torch.Generator().manual_seed(seed)
    return list(generate(model, prompt, tokens=tokens, temperature=temperature, top_k=top_k, generator=random))


def test_without_temperature_every_token_is_the_likeliest_of_the_whole_model(trained):
    model, task = load_language_model(trained, torch.device("cpu"))
    prompt = torch.tensor(task.encode("Fel"))
    seen = prompt.tolist()
    for token in write(model.double(), prompt, CONTEXT - len(prompt)):
        assert token == model(torch.tensor([seen]))[0, -1].argmax().item()
        seen.append(token)
    assert len(seen) == CONTEXT


def test_it_writes_on_when_the_context_is_full(trained):
    model, task = load_language_model(trained, torch.device("cpu"))
    prompt = torch.tensor(task.encode("A prompt that is longer than the sixteen bytes of context"))
    assert len(write(model, prompt, 3 * CONTEXT)) == 3 * CONTEXT


def test_draws_follow_the_seed_and_the_likeliest_k(trained):
    model, task = load_language_model(trained, torch.device("cpu"))
    prompt = torch.tensor(task.encode("The "))
    one, again, other = (write(model, prompt, 18, temperature=1.0, seed=s) for s in (1, 1, 2))
    assert one == again != other
    assert write(model, prompt, 18, temperature=1.0, top_k=1) == write(model, prompt, 18)


def test_the_text_is_one_json_document_or_the_prompt_and_its_continuation(suite, trained):
    asked = ("generate", trained, "--prompt", "My fellow ", "--tokens", "5", "--seed", "3")
    told = json.loads(suite(*asked, "--json").out)
    assert told["seed"] == 3
    assert suite(*asked).out == f"My fellow {told['text']}\n"


def test_only_language_models_write(suite, monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    run = start(tiny_config("fashion-mnist", "softmax", "steps=1"), data_dir=None, device="cpu").record.id
    ended = suite("generate", run)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "only language models generate text" in ended.err
