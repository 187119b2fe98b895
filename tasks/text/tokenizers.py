"""Lossless tokenizers: bytes, or byte-level BPE of the `tokenizers` library (trained here, from a file, or GPT-2's).

Only byte-level tokenizers are accepted: each token stands for fixed bytes, so `decode(encode(text)) == text` for every
text, and bits per byte can be compared between tokenizers. The end-of-text token stands for no bytes, and no text
encodes to it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError

if TYPE_CHECKING:
    import tokenizers

BYTES_VOCAB = 257  # 256 bytes and the end of text
GPT2_REPO, GPT2_VOCAB = "openai-community/gpt2", 50_257
MIN_BPE_VOCAB = BYTES_VOCAB + 1
MAX_ENCODED_CHARS = 2**17  # per call of the library, which needs about 90 bytes of memory per character
MAX_TRAINING_CHARS = 2**12  # per text in training, where the library collects some hundred texts
WORD_BORDER = re.compile(r"(?<=\w)(?= \w)")
END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "<|eos|>", "</s>", "<eos>", "[EOS]")  # usual end-of-text tokens


class Tokenizer(ABC):
    """Token ids in `[0, vocab)`; `end` is the end-of-text token. `token_bytes[id]` are the bytes of an id (none for
    `end`).
    """

    vocab: int
    end: int
    token_bytes: tuple[bytes, ...]

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """The ids of each text, without an end token."""

    @property
    @abstractmethod
    def definition(self) -> str:
        """A text that determines all ids."""

    def decode(self, ids: Iterable[int]) -> bytes:
        return b"".join(self.token_bytes[i] for i in ids)

    @cached_property
    def fingerprint(self) -> str:
        return sha256(f"{self.end}\n{self.definition}".encode()).hexdigest()


class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8; 256 is the end of text."""

    vocab, end = BYTES_VOCAB, BYTES_VOCAB - 1
    token_bytes = (*(bytes([b]) for b in range(256)), b"")
    definition = "bytes"

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        return [np.frombuffer(to_bytes(text), dtype=np.uint8) for text in texts]


class BpeTokenizer(Tokenizer):
    """A byte-level tokenizer of the `tokenizers` library, from its JSON.

    With `vocab` 0 it has the size and the end token of the file (one additional id if the file has no end token);
    otherwise the last id of `vocab` is the end token.
    """

    def __init__(self, definition: str, vocab: int = 0, name: str = "the tokenizer") -> None:
        self._definition = definition
        self._library = _parse(definition, name)
        size = 1 + max(self._library.get_vocab().values())
        own_end = next((i for i in map(self._library.token_to_id, END_NAMES) if i is not None), None)
        self.end = vocab - 1 if vocab else size if own_end is None else own_end
        self.vocab = max(size, self.end + 1)
        self.token_bytes = self._bytes_of_tokens(name)

    @property
    def definition(self) -> str:
        return self._definition

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        clean = [to_bytes(text).decode("utf-8") for text in texts]
        if max(map(len, clean), default=0) <= MAX_ENCODED_CHARS:
            return self._encode(clean)
        parts = (parts_of(text, MAX_ENCODED_CHARS) for text in clean)
        return [np.concatenate([self._encode([part])[0] for part in text_parts]) for text_parts in parts]

    def _encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        return [
            np.asarray(e.ids, dtype=np.int64) for e in self._library.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def _bytes_of_tokens(self, name: str) -> tuple[bytes, ...]:
        added = self._library.get_added_tokens_decoder()
        letters = byte_letters()
        token_bytes = [b""] * self.vocab
        for token, i in self._library.get_vocab().items():
            if i == self.end:
                continue
            if i in added:
                token_bytes[i] = b"" if added[i].special else token.encode("utf-8")
                continue
            try:
                token_bytes[i] = bytes(letters[letter] for letter in token)
            except KeyError:
                raise DataError(
                    f"{name} is not byte-level: its token {token!r} stands for no fixed bytes; use bytes or bpe"
                ) from None
        return tuple(token_bytes)


def to_bytes(text: str) -> bytes:
    """The text in UTF-8; an unpaired surrogate, which is no character, becomes '?'."""
    return text.encode("utf-8", "replace")


def parts_of(text: str, size: int) -> Iterator[str]:
    """The text in parts of about `size` characters, cut before a space between two words, where GPT-2's pattern also
    splits.
    """
    at = 0
    while len(text) - at > size and (border := WORD_BORDER.search(text, at + size)):
        yield text[at : border.start()]
        at = border.start()
    yield text[at:]


def byte_letters() -> dict[str, int]:
    """The letter for each byte in byte-level vocabularies (GPT-2): itself in printable Latin-1, else U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}


def _parse(definition: str, name: str) -> tokenizers.Tokenizer:
    """The library's tokenizer. Raises DataError if it cannot reproduce every text exactly."""
    from tokenizers import Tokenizer as Library

    if not _is_lossless(definition, name):  # checked before the library reads it, which panics at a subword prefix
        raise DataError(
            f"{name} does not reproduce every text: it must be byte-level BPE over all 256 bytes, without normalizer, "
            "prefix space, subword prefix, end-of-word suffix, dropout and truncation; use bytes or bpe"
        )
    try:
        library = Library.from_str(definition)
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(f"{name} is not a tokenizer.json: {str(error).splitlines()[0]}") from None
    library.encode_special_tokens = True  # a special token's name in a text is plain text
    library.no_padding()
    return library


def _is_lossless(definition: str, name: str) -> bool:
    """Whether the tokenizer of a tokenizer.json reproduces every text. Raises DataError if it is not a tokenizer."""
    try:
        content = json.loads(definition)
        model = content["model"]
        kind, vocab = model["type"], set(model["vocab"])
        steps = content.get("pre_tokenizer") or {}
        byte_level = [step for step in steps.get("pretokenizers") or [steps] if step.get("type") == "ByteLevel"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{name} is not a tokenizer.json: {type(error).__name__} {str(error).splitlines()[0]}"
        ) from None
    if content.get("normalizer") or content.get("truncation"):
        return False
    if len(byte_level) != 1 or byte_level[0].get("add_prefix_space"):
        return False
    altered = any(map(model.get, ("dropout", "continuing_subword_prefix", "end_of_word_suffix")))
    return kind == "BPE" and not altered and byte_letters().keys() <= vocab


def train_bpe(texts: Iterable[str], vocab: int) -> str:
    """Byte-level BPE with `vocab` − 1 tokens (the last id is the end of text), as JSON; fewer from a small corpus."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab - 1, initial_alphabet=sorted(byte_letters()), show_progress=False)
    clean = (to_bytes(text).decode("utf-8") for text in texts)
    library.train_from_iterator((part for text in clean for part in parts_of(text, MAX_TRAINING_CHARS)), trainer)
    return str(library.to_str())


def read_definition(path: Path) -> str:
    """The content of a tokenizer.json. Raises DataError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"tokenizer {str(path)!r} cannot be read: {error}; use bytes, bpe, gpt2 or the path of a tokenizer.json"
        ) from None
