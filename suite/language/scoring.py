"""Scoring and generation with a finished language model: log-likelihoods of continuations and of whole texts, and text
up to a stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from backbones.decoder import Decoder
from suite.language.generate import generate
from tasks.base import TextTask


@dataclass(frozen=True)
class Window:
    """Token ids that the model reads, of which the last `len(targets)` outputs are scored, and the index of the text
    that they belong to.
    """

    text_index: int
    inputs: tuple[int, ...]
    targets: tuple[int, ...]


def windows(text_index: int, ids: Sequence[int], first: int, length: int) -> Iterator[Window]:
    """Windows that score each of ids[first:] once, with as many preceding tokens as fit into a context of `length`;
    first ≥ 1.
    """
    for at in range(first, len(ids), length):
        end = min(at + length, len(ids))
        yield Window(text_index, tuple(ids[max(0, end - 1 - length) : end - 1]), tuple(ids[at:end]))


class Scorer:
    """A model and the task whose tokenizer it uses. Windows of similar length share a batch; as the model is causal,
    padding at the end does not affect earlier positions.
    """

    def __init__(self, model: Decoder, task: TextTask, device: torch.device, batch_size: int = 16) -> None:
        self.model, self.task, self.device, self.batch_size = model, task, device, batch_size
        self.length = model.trunk.config.length

    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """The log-likelihood of each (context, continuation) pair's continuation in nats, and whether greedy decoding
        would produce it.

        Spaces at the end of a context count as part of the continuation, as tokenizers join them to the next word; so
        does the last token of a context if it merges with the continuation.
        """
        found: list[Window] = []
        for index, (context, continuation) in enumerate(pairs):
            whole = self.task.encode(context + continuation)
            pairs_of_tokens = zip(self.task.encode(context.rstrip()), whole, strict=False)
            first = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs_of_tokens))
            found += windows(index, whole, max(1, first), self.length)
        return self._score(found, len(pairs))

    def texts(self, texts: Sequence[str]) -> list[float]:
        """The log-likelihood of each whole text in nats: each token once, in windows of the context length."""
        found = [w for index, text in enumerate(texts) for w in windows(index, self.task.encode(text), 1, self.length)]
        return [total for total, _ in self._score(found, len(texts))]

    def generate(self, context: str, until: Sequence[str], tokens: int, temperature: float, seed: int = 0) -> str:
        """The text that follows a context, up to the first stop string, the end of the text, or `tokens` tokens."""
        prompt = torch.tensor(self.task.encode(context), device=self.device)
        decoder, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
        random = torch.Generator().manual_seed(seed)
        end = self.task.encode("")[0]
        for token in generate(self.model, prompt, tokens=tokens, temperature=temperature, top_k=0, generator=random):
            if token == end:
                break
            text += decoder.decode(self.task.decode([token]))
            stops = [text.index(stop) for stop in until if stop and stop in text]
            if stops:
                return text[: min(stops)]
        return text

    @torch.no_grad()
    def _score(self, found: Sequence[Window], count: int) -> list[tuple[float, bool]]:
        sums, greedy = [0.0] * count, [True] * count
        ordered = sorted(found, key=lambda w: len(w.inputs))
        for at in range(0, len(ordered), self.batch_size):
            batch = ordered[at : at + self.batch_size]
            widest = len(batch[-1].inputs)
            ids_BT = torch.tensor([[*w.inputs, *[0] * (widest - len(w.inputs))] for w in batch], device=self.device)
            for window, logits_TV in zip(batch, self.model(ids_BT), strict=True):
                end = len(window.inputs)
                scored_SV = logits_TV[end - len(window.targets) : end].double().log_softmax(-1)
                targets_S = torch.tensor(window.targets, device=self.device)
                sums[window.text_index] += scored_SV.gather(1, targets_S[:, None]).sum().item()
                greedy[window.text_index] &= bool((scored_SV.argmax(-1) == targets_S).all())
        return list(zip(sums, greedy, strict=True))
