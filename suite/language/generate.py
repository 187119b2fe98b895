"""Text from a trained language model, one token at a time through each mixer's decoding state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

import tasks
from backbones.decoder import Decoder
from suite.errors import UserError
from suite.models.inputs import adapter
from suite.models.resolve import resolve_written
from suite.records import runs_folder
from suite.training import checkpoint
from tasks.base import TextInput, TextTask


def load_language_model(run: str, device: torch.device) -> tuple[Decoder, TextTask]:
    """The selected model of a run and its task. Raises UserError where the run is none of a language model or has no
    weights.
    """
    folder = runs_folder.find_run(run)
    written = runs_folder.read_run(folder)
    resolved = resolve_written(written["config"])
    config, candidate = resolved.config, resolved.candidate
    task = tasks.get(config.task)(config.data, Path(written["data_dir"]) if written["data_dir"] else None)
    if not isinstance(task, TextTask) or not isinstance(task.spec, TextInput):
        raise UserError(f"run {folder.name} is of {config.task}, {task.domain}; only language models generate text")
    task.use_files(folder)
    state = checkpoint.load(folder, device)
    model = adapter(task.spec).backbone(config.model, candidate.plan(config, task.spec).layers)
    assert isinstance(model, Decoder)
    model.load_state_dict(state["best"]["weights"] or state["model"])
    return model.to(device).eval(), task


@torch.no_grad()
def generate(
    model: Decoder, prompt_P: torch.Tensor, *, tokens: int, temperature: float, top_k: int, generator: torch.Generator
) -> Iterator[int]:
    """Token ids after the prompt `[P]`, P ≥ 1. temperature 0 takes the likeliest; top_k 0 keeps all.

    When the context is full, the newest half of it is read again into a fresh state: positions are learned and end
    there.
    """
    length = model.trunk.config.length
    seen = prompt_P[-length:].tolist()
    states = model.init_state(1, length)
    logits_V = torch.empty(0)
    pending = list(seen)
    for _ in range(tokens):
        if states[0].position + len(pending) > length:
            seen = seen[-(length // 2) or None :]
            states, pending = model.init_state(1, length), list(seen)
        for token in pending:
            logits_1V, states = model.step(torch.tensor([token], device=prompt_P.device), states)
            logits_V = logits_1V[0].float()
        chosen = _sample(logits_V, temperature, top_k, generator)
        seen.append(chosen)
        pending = [chosen]
        yield chosen


def _sample(logits_V: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k:
        kept, indices = logits_V.topk(min(top_k, logits_V.numel()))
    else:
        kept, indices = logits_V, torch.arange(logits_V.numel(), device=logits_V.device)
    choice = torch.multinomial((kept / temperature).softmax(dim=-1).cpu(), 1, generator=generator)
    return int(indices[choice.to(indices.device)])
