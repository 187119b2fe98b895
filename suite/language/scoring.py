"""What a finished language model says of text: log-likelihoods of continuations and of whole texts, and writing until a
stop.
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
    """Token ids a model reads, of which the last `len(targets)` outputs are scored. `owner` is the text they belong
    to.
    """

    owner: int
    inputs: tuple[int, ...]
    targets: tuple[int, ...]


def windows(owner: int, ids: Sequence[int], first: int, length: int) -> Iterator[Window]:
    """Windows that score ids[first:], each once, every one with as much before it as a context of `length` tokens
    holds; first ≥ 1.
    """
    for at in range(first, len(ids), length):
        end = min(at + length, len(ids))
        yield Window(owner, tuple(ids[max(0, end - 1 - length) : end - 1]), tuple(ids[at:end]))


class Scorer:
    """A model and the task whose tokens it reads. Windows of like length share a batch, padded at their end, which
    nothing before sees.
    """

    def __init__(self, model: Decoder, task: TextTask, device: torch.device, batch_size: int = 16) -> None:
        self.model, self.task, self.device, self.batch_size = model, task, device, batch_size
        self.length = model.trunk.config.length

    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): the continuation's log-likelihood in nats, and whether every token of it is
        the likeliest.

        Spaces at a context's end count to its continuation, as tokenizers join them to the word that follows; so does a
        context's last token where it merges with what follows.
        """
        found: list[Window] = []
        for owner, (context, continuation) in enumerate(pairs):
            whole = self.task.encode(context + continuation)
            pairs_of_tokens = zip(self.task.encode(context.rstrip()), whole, strict=False)
            first = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs_of_tokens))
            found += windows(owner, whole, max(1, first), self.length)
        return self._score(found, len(pairs))

    def texts(self, texts: Sequence[str]) -> list[float]:
        """The log-likelihood of each whole text in nats, every token once, in windows of the context."""
        found = [w for owner, text in enumerate(texts) for w in windows(owner, self.task.encode(text), 1, self.length)]
        return [total for total, _ in self._score(found, len(texts))]

    def write(self, context: str, until: Sequence[str], tokens: int, temperature: float, seed: int = 0) -> str:
        """The text after a context, up to the first of the stop strings, the end of a text, or `tokens` tokens."""
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
    def _score(self, found: Sequence[Window], owners: int) -> list[tuple[float, bool]]:
        sums, greedy = [0.0] * owners, [True] * owners
        ordered = sorted(found, key=lambda w: len(w.inputs))
        for at in range(0, len(ordered), self.batch_size):
            batch = ordered[at : at + self.batch_size]
            widest = len(batch[-1].inputs)
            ids_BT = torch.tensor([[*w.inputs, *[0] * (widest - len(w.inputs))] for w in batch], device=self.device)
            for window, logits_TV in zip(batch, self.model(ids_BT), strict=True):
                end = len(window.inputs)
                scored_SV = logits_TV[end - len(window.targets) : end].double().log_softmax(-1)
                targets_S = torch.tensor(window.targets, device=self.device)
                sums[window.owner] += scored_SV.gather(1, targets_S[:, None]).sum().item()
                greedy[window.owner] &= bool((scored_SV.argmax(-1) == targets_S).all())
        return list(zip(sums, greedy, strict=True))
