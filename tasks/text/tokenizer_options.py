"""Which tokenizer a language task uses: its options, and opening what they name. A trained one is kept for its corpus
and settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from tasks.base import DataError, TaskOptions
from tasks.storage import cache, hub
from tasks.text.documents import Corpus, Progress
from tasks.text.tokenizers import (
    BYTES_VOCAB,
    GPT2_REPO,
    GPT2_VOCAB,
    LEAST_BPE,
    BpeTokenizer,
    ByteTokenizer,
    Tokenizer,
    read_definition,
    train_bpe,
)

SAMPLE_BYTES = 64 * 2**20  # of training text, from its beginning, that BPE is trained on
NAMED = ("bytes", "bpe", "gpt2")
FILE = "tokenizer.json"
HELP = "bytes, bpe (trained on the training part), gpt2, or the path of a tokenizer.json"


class TokenizerOptions(TaskOptions):
    """`vocab` is filled in, so that a model can be built without data. A file counts by its content, not by where it
    stands.
    """

    tokenizer: str = Field(default="bytes", description=HELP)
    vocab: int = Field(
        default=0, ge=0, le=2**20, description="token ids; bpe is trained to as many, the other tokenizers decide it"
    )
    tokenizer_sha256: str = Field(default="", pattern="^[0-9a-f]*$", description="of a tokenizer.json; filled in")
    usual_vocab: ClassVar[int] = 8192  # of bpe

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: dict[str, Any]) -> dict[str, Any]:
        name = str(given.get("tokenizer", cls.model_fields["tokenizer"].default))
        vocab, digest = str(given.get("vocab") or 0), str(given.get("tokenizer_sha256") or "")
        if name == "bpe":
            decided, digest_found = vocab if vocab != "0" else str(cls.usual_vocab), ""
            if decided.isdigit() and int(decided) < LEAST_BPE:
                raise ValueError(
                    f"vocab of bpe: at least {LEAST_BPE} is allowed (256 bytes, an end, one merge), {vocab} was given"
                )
        else:
            decided, digest_found = _decided(name, vocab, digest)
            if digest not in ("", digest_found):
                raise ValueError(_another_file(name, digest))
            if vocab not in ("0", decided):
                raise ValueError(_another_vocab(name, decided, vocab))
        return {**given, "tokenizer": name, "vocab": decided, "tokenizer_sha256": digest_found}

    def portable(self) -> dict[str, Any]:
        content = super().portable()
        return {**content, "tokenizer": FILE} if self.tokenizer_sha256 else content


def _decided(name: str, vocab: str, digest: str) -> tuple[str, str]:
    """The vocabulary of a tokenizer that is not trained here, and of a file its sha256."""
    if name in NAMED:
        return str(BYTES_VOCAB if name == "bytes" else GPT2_VOCAB), ""
    if (
        digest and vocab != "0"
    ):  # of a record or a run: what was written there holds, wherever the file is; opening it compares
        return vocab, digest
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"tokenizer: bytes, bpe, gpt2 or the path of a tokenizer.json is allowed, {name!r} was given")
    definition = read_definition(path)
    return str(BpeTokenizer(definition, name=name).vocab), sha256(definition.encode()).hexdigest()


def _another_file(name: str, digest: str) -> str:
    return f"the tokenizer {name!r} is not the one it was (its sha256 was {digest[:12]}…); name the right file"


def _another_vocab(name: str, own: int | str, given: int | str) -> str:
    return f"the tokenizer {name!r} has a vocabulary of {own}, {given} was given; --set vocab=0 takes it"


def is_ready(options: TokenizerOptions, corpus: Corpus) -> bool:
    """Whether opening the tokenizer would neither train nor download it."""
    if options.tokenizer == "gpt2":
        return hub.cached(GPT2_REPO, FILE, kind="model") is not None
    return options.tokenizer != "bpe" or _trained_file(options, corpus).is_file()


def open_tokenizer(options: TokenizerOptions, corpus: Corpus, progress: Progress | None = None) -> Tokenizer:
    """The tokenizer that the options name; one to be trained is trained on the corpus unless that was done before.
    Raises DataError.

    `progress(done, total)` is told the bytes of text that the training has read.
    """
    if options.tokenizer == "bytes":
        return ByteTokenizer()
    if options.tokenizer == "gpt2":
        return BpeTokenizer(read_definition(hub.fetch(GPT2_REPO, FILE, kind="model")), name="gpt2")
    if options.tokenizer != "bpe":
        return _open_file(options)
    path = _trained_file(options, corpus)
    if not path.is_file():
        with cache.lock(path.with_suffix(".lock")):
            if not path.is_file():
                cache.write_text(path, train_bpe(_training_text(corpus, progress), options.vocab))
    return BpeTokenizer(read_definition(path), options.vocab)


def _open_file(options: TokenizerOptions) -> Tokenizer:
    """Raises DataError where the file has changed since the options were made, in another process perhaps."""
    name, digest = options.tokenizer, options.tokenizer_sha256
    definition = read_definition(Path(name))
    if sha256(definition.encode()).hexdigest() != digest:
        raise DataError(_another_file(name, digest))
    made = BpeTokenizer(definition, name=name)
    if made.vocab != options.vocab:
        raise DataError(_another_vocab(name, made.vocab, options.vocab))
    return made


def kept_tokenizer(options: TokenizerOptions, path: Path) -> Tokenizer:
    """The tokenizer from the file that a run keeps."""
    return BpeTokenizer(read_definition(path), options.vocab if options.tokenizer == "bpe" else 0)


def _trained_file(options: TokenizerOptions, corpus: Corpus) -> Path:
    key = sha256(json.dumps([corpus.key, options.vocab, SAMPLE_BYTES], sort_keys=True).encode()).hexdigest()
    return cache.folder("tokenizers") / f"bpe-{options.vocab}-{key[:16]}.json"


def _training_text(corpus: Corpus, progress: Progress | None) -> Iterator[str]:
    """The beginning of the training part, and nothing else."""
    seen, total = 0, min(corpus.size, SAMPLE_BYTES)
    for block in corpus.blocks():
        for piece in block.pieces:
            if piece.split == "train":
                yield piece.text
                seen += len(piece.text.encode("utf-8", "replace"))
                if seen >= SAMPLE_BYTES:
                    return
        if progress is not None:
            progress(min(seen, total), total)
    if not seen:
        raise DataError("the corpus has no training text to train bpe on")
