"""MAD's in-context recall, plain, noisy and fuzzy (arXiv 2403.17844): a key seen before is followed by the value it had
before.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tasks.base import Split, TaskOptions, TextInput
from tasks.recall.base import IGNORED, RecallOptions
from tasks.recall.fuzzy_motifs import ABSENT, FuzzyForm, draw_fuzzy
from tasks.recall.ladder import LadderTask, VocabularyLadderOptions
from tasks.recall.sampling import Ints, distinct

Mask = NDArray[np.bool_]


class PairsOptions(RecallOptions):
    """Options of sequences of pairs of one token each."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length % 2 or self.length < 4:
            raise ValueError(f"length {self.length} must be even and at least 4: a sequence is pairs of two tokens")
        return self


class InContextOptions(VocabularyLadderOptions, PairsOptions):
    """Options of `mad-in-context`, with the published values."""


class NoisyOptions(PairsOptions):
    """Options of `mad-noisy`, with the published values."""

    noise: float = Field(
        default=0.2, ge=0, le=1, description="fraction of the pairs that are replaced by noise (one pair never is)"
    )
    noise_vocab: int = Field(
        default=16, ge=1, le=2**20, description="noise tokens, in addition to the task's own vocabulary"
    )


class FuzzyOptions(RecallOptions):
    """Options of `mad-fuzzy`, with the published values."""

    key_motif: int = Field(default=3, ge=1, le=8, description="longest key in tokens")
    value_motif: int = Field(default=3, ge=1, le=8, description="longest value in tokens")

    form: Literal["published", "mixed"] = Field(
        default="published",
        description="published: evaluation asks for keys of the greatest length only, padding on the left; mixed: keys "
        "of all lengths in every split, padding on the right with one more token",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        published = int(self.form == "published")  # whose vocabulary contains the padding
        longest, need = max(self.key_motif, self.value_motif), 2 * (self.key_motif + self.value_motif) + published
        if self.length < need:
            raise ValueError(f"length {self.length} must be at least {need}, twice the longest key and value")
        if longest > (self.vocab - published) // 2:
            raise ValueError(
                f"vocab {self.vocab} must be at least {2 * longest + published}, for {longest} different tokens in a "
                "key or value"
            )
        return self


class MadInContext(LadderTask):
    """Pairs of a key and a value, drawn with replacement. Within a sequence, a key keeps the value it was first drawn
    with.

        k_a v_a k_b v_b k_a v_a …

    Keys are the first half of the vocabulary, values the rest. Scored: the value of every key that occurred earlier in
    the sequence (the published multi-query variant), as the target of the token before it. The last pair repeats one of
    the keys at random, so at least one value is scored. The paper trains on every next token of these sequences and
    tests the values; here only the values are trained on as well.

    Published: 128 tokens, a vocabulary of 16, 12,800 training and 1,280 test sequences.

    With `ladder`, the sequences use several sizes of the vocabulary in equal parts: rung v has the first keys and the
    first values of the whole vocabulary.
    """

    name = "mad-in-context"
    summary = "MAD: the value that a key had earlier in the sequence (synthetic)"
    protocol = "mad-in-context/1"
    source = "arXiv 2403.17844 (in-context recall, multi-query)"
    Options: ClassVar[type[TaskOptions]] = InContextOptions
    options: RecallOptions

    @property
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest key and of the longest value."""
        return 1, 1

    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        o, (K, V) = self.options, self.longest
        slots, half = o.length // 2, o.vocab // 2
        noise = self._noise_slots(random, n, slots)
        keys = motifs(random, n, slots, half, K)
        values = motifs(random, n, slots, o.vocab - half, V, start=half)
        first = first_alike(keys, noise)
        values = np.take_along_axis(values, first[..., None], axis=1)
        pairs = np.concatenate([keys, values], axis=2)
        pairs[noise] = self._noise_pairs(random, int(noise.sum()))
        kept = np.cumsum((pairs != ABSENT).sum(2), axis=1) <= o.length - K - V
        new = ~noise & (first == np.arange(slots))
        last = one_of(random, kept & new)  # one of the different keys, equally likely
        pairs[~kept] = ABSENT
        pairs = np.concatenate([pairs, pairs[np.arange(n), last][:, None]], axis=1)
        scored = np.zeros(pairs.shape, dtype=np.bool_)
        scored[:, :-1, K:] = (~noise & ~new)[..., None]
        scored[:, -1, K:] = True
        return laid_end_to_end(pairs.reshape(n, -1), scored.reshape(n, -1), o.length, fill=self.spec.vocab - 1)

    def _noise_slots(self, random: np.random.Generator, n: int, slots: int) -> Mask:
        """`[n, slots]`: the pairs that are replaced by noise."""
        return np.zeros((n, slots), dtype=np.bool_)

    def _noise_pairs(self, random: np.random.Generator, count: int) -> Ints:
        """`[count, 2]`: the noise tokens of so many pairs."""
        return np.empty((count, sum(self.longest)), dtype=np.int64)


class MadNoisy(MadInContext):
    """In-context recall with noise: with probability `noise`, a pair is replaced by two random tokens of a separate
    vocabulary.

    Published: one pair in five, 16 noise tokens; the rest as in `mad-in-context`.
    """

    name = "mad-noisy"
    summary = "MAD: in-context recall with noise between the pairs (synthetic)"
    protocol = "mad-noisy/1"
    source = "arXiv 2403.17844 (noisy in-context recall)"
    Options: ClassVar[type[TaskOptions]] = NoisyOptions
    options: NoisyOptions

    @property
    def spec(self) -> TextInput:
        return TextInput(vocab=self.options.vocab + self.options.noise_vocab, length=self.options.length)

    def _noise_slots(self, random: np.random.Generator, n: int, slots: int) -> Mask:
        noise = random.random((n, slots)) < self.options.noise
        noise[np.arange(n), random.integers(slots - 1, size=n)] = False  # the last place belongs to the repeated pair
        return noise

    def _noise_pairs(self, random: np.random.Generator, count: int) -> Ints:
        return self.options.vocab + random.integers(self.options.noise_vocab, size=(count, 2))


class MadFuzzy(MadInContext):
    """In-context recall whose keys and values are motifs of several tokens.

    A motif has different tokens in random order. A value has 1 to `value_motif` of them, a key in training 1 to
    `key_motif`, all lengths equally likely; in validation and the test every key has `key_motif` tokens. One pair is
    drawn first, put at a random place and repeated at the end. All tokens of a value whose key was seen before are
    scored, and those of the repeated value; in about one row of a hundred its pair was to come after the last place.
    Padding, the vocabulary's last token, comes first.

    Published: 128 tokens, a vocabulary of 16 (7 for keys, 8 for values), motifs of up to 3 tokens.

    With `form=mixed`, which version 1 of this task used, keys have all lengths in every split, the repeated pair is one
    of those shown, and one more token fills the places after it.
    """

    name = "mad-fuzzy"
    summary = "MAD: in-context recall of keys and values of several tokens (synthetic)"
    protocol = "mad-fuzzy/2"
    version = 2
    source = "arXiv 2403.17844 (fuzzy in-context recall)"
    Options: ClassVar[type[TaskOptions]] = FuzzyOptions
    options: FuzzyOptions

    @property
    def spec(self) -> TextInput:
        return TextInput(vocab=self.options.vocab + (self.options.form == "mixed"), length=self.options.length)

    def draw_split(self, split: Split, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        o = self.options
        if o.form == "mixed":
            return self.draw(random, n)
        form = FuzzyForm(o.length, o.vocab, o.key_motif, o.value_motif, fixed_key=split != "train")
        return draw_fuzzy(random, n, form, IGNORED)

    @property
    def longest(self) -> tuple[int, int]:
        return self.options.key_motif, self.options.value_motif


def motifs(random: np.random.Generator, n: int, slots: int, vocab: int, longest: int, start: int = 0) -> Ints:
    """`[n, slots, longest]`: in each slot 1 to `longest` different tokens of [start, start + vocab) in random order,
    then ABSENT.
    """
    tokens = start + distinct(random, n * slots, vocab, longest)
    lengths = random.integers(1, longest + 1, size=(n * slots, 1))
    return np.where(np.arange(longest) < lengths, tokens, ABSENT).reshape(n, slots, longest)


def first_alike(keys_NSK: Ints, apart_NS: Mask) -> Ints:
    """`[N, S]`: for each slot the first slot of its row with the same key; slots set apart match only themselves."""
    n, slots, _ = keys_NSK.shape
    alike = np.repeat(np.arange(n)[:, None], slots, axis=1)
    for token_NS in (*np.moveaxis(keys_NSK, 2, 0), np.where(apart_NS, np.arange(slots), ABSENT)):
        code = alike * (token_NS.max() + 2) + token_NS + 1
        alike = np.unique(code, return_inverse=True)[1].reshape(n, slots)
    first = np.full(int(alike.max()) + 1, slots)
    np.minimum.at(first, alike, np.broadcast_to(np.arange(slots), alike.shape))
    return first[alike]


def one_of(random: np.random.Generator, allowed_NS: Mask) -> Ints:
    """`[N]`: in each row one of the allowed slots, all equally likely; there is at least one."""
    return np.where(allowed_NS, random.random(allowed_NS.shape), -1.0).argmax(1)


def laid_end_to_end(tokens_NP: Ints, scored_NP: Mask, length: int, fill: int) -> tuple[Ints, Ints]:
    """Sequences `[N, length]` of the tokens that are not ABSENT, one after the other, then `fill`; and their targets: a
    scored token is the target of the place before it.
    """
    rows, places = np.nonzero(tokens_NP != ABSENT)
    there = (np.cumsum(tokens_NP != ABSENT, axis=1) - 1)[rows, places]
    inputs = np.full((len(tokens_NP), length), fill, dtype=np.int64)
    inputs[rows, there] = tokens_NP[rows, places]
    targets = np.full_like(inputs, IGNORED)
    scored = scored_NP[rows, places]
    targets[rows[scored], there[scored] - 1] = tokens_NP[rows, places][scored]
    return inputs, targets
