"""Tokenizers: every text is reproduced exactly, tokens stand for fixed bytes, BPE sees the training part only."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.storage import cache
from tasks.text import tokenizers
from tasks.text.documents import Block, Corpus, Fragment
from tasks.text.tokenizer_options import TokenizerOptions, is_ready, open_tokenizer
from tasks.text.tokenizers import BpeTokenizer, ByteTokenizer, byte_letters, parts_of, train_bpe
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import addresses

END = "<|endoftext|>"


class TwoParts(Corpus):
    """A training text and a validation text in memory."""

    key, size = {}, 1000

    def __init__(self, train: str, valid: str, key: str = "") -> None:
        self.texts, self.key = (train, valid), {"key": key}

    def blocks(self, state=None):
        train, valid = self.texts
        yield Block([Fragment("valid", valid, True), Fragment("train", train, True)], {})


@pytest.fixture(scope="module")
def trained() -> str:
    return train_bpe(addresses()[:3], 400)


@pytest.fixture(scope="module")
def with_special(trained) -> str:
    """The same with a special end token and an added token that is not special, like files on the hub."""
    content = json.loads(trained)
    size = len(content["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] = [
        {"id": size, "content": END, "special": True, **flags},
        {"id": size + 1, "content": "Senate", "special": False, **flags},
    ]
    return json.dumps(content)


@pytest.fixture(scope="module", params=["bytes", "bpe", "file"])
def tokenizer(request, trained, with_special):
    return {
        "bytes": ByteTokenizer,
        "bpe": lambda: BpeTokenizer(trained, 400),
        "file": lambda: BpeTokenizer(with_special),
    }[request.param]()


PIECES = [END, "Senate", " ", "\n", "\r\n", "\0", "é", "e\u0301", "\U0001f469\u200d\U0001f680", "of the ", "\u2028"]
texts = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)


@given(text=texts)
def test_every_text_is_reproduced_exactly_and_none_encodes_to_the_end_token(tokenizer, text):
    [ids] = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text.encode()
    assert tokenizer.end not in ids
    assert all(0 <= i < tokenizer.vocab for i in ids)
    assert sum(len(tokenizer.token_bytes[i]) for i in ids) == len(text.encode())


def test_texts_encoded_together_equal_texts_encoded_one_by_one(tokenizer):
    some = [addresses()[i][:300] for i in range(5)] + [""]
    for ids, text in zip(tokenizer.encode(some), some, strict=True):
        assert ids.tolist() == tokenizer.encode([text])[0].tolist()


RUNS = addresses()[0][:3000] + "one        two \n\n       three " * 100


@pytest.fixture(scope="module")
def of_runs() -> BpeTokenizer:
    """A tokenizer with tokens of several spaces."""
    return BpeTokenizer(train_bpe([RUNS], 400), 400)


@pytest.mark.parametrize("size", [50, 61, 73])
def test_a_long_text_encoded_in_parts_gives_the_tokens_of_the_whole(monkeypatch, of_runs, size):
    short, whole = of_runs.encode(["of the Senate", RUNS])
    assert any(of_runs.token_bytes[i].startswith(b"   ") for i in whole)
    monkeypatch.setattr(tokenizers, "MAX_ENCODED_CHARS", size)
    parts = list(parts_of(RUNS, size))
    assert len(parts) > 30
    assert max(map(len, parts)) < size + 150
    assert "".join(parts) == RUNS
    assert [ids.tolist() for ids in of_runs.encode(["of the Senate", RUNS, ""])] == [short.tolist(), whole.tolist(), []]


def test_training_on_parts_of_a_long_text_gives_the_tokenizer_of_the_whole(monkeypatch, of_runs):
    for size in (50, 10**9):
        monkeypatch.setattr(tokenizers, "MAX_TRAINING_CHARS", size)
        assert train_bpe([RUNS], 400) == of_runs.definition


def test_a_long_text_without_spaces_is_one_part():
    assert list(parts_of("é" * 500, 60)) == ["é" * 500]
    assert list(parts_of("", 60)) == [""]


def test_the_end_token_has_no_bytes_and_is_the_files_own_if_it_has_one(trained, with_special):
    assert ByteTokenizer().end == 256
    own, added = BpeTokenizer(with_special), BpeTokenizer(trained)
    assert own.end == json.loads(with_special)["added_tokens"][0]["id"]
    assert (added.end, added.vocab) == (399, 400)  # 399 tokens and one additional id
    assert (BpeTokenizer(trained, 500).end, BpeTokenizer(trained, 500).vocab) == (499, 500)
    for tokenizer in (own, added):
        assert tokenizer.token_bytes[tokenizer.end] == b""
        assert tokenizer.decode([tokenizer.end]) == b""


def test_an_unpaired_surrogate_becomes_a_question_mark(tokenizer):
    assert tokenizer.decode(tokenizer.encode(["a\ud800b"])[0]) == b"a?b"


def test_the_letters_of_bytes_equal_those_of_the_library():
    from tokenizers import pre_tokenizers

    assert set(byte_letters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_letters().values()) == list(range(256))
    for text in ("é", "\n", "😀", "a b"):
        pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        assert bytes(byte_letters()[letter] for piece, _ in pieces for letter in piece) == text.encode()


def test_training_is_deterministic_and_gives_at_most_the_requested_tokens(trained):
    assert train_bpe(addresses()[:3], 400) == trained
    assert len(json.loads(trained)["model"]["vocab"]) == 399
    assert BpeTokenizer(train_bpe(["ab"], 400), 400).vocab == 400


def test_bpe_is_trained_on_the_training_part_once_per_corpus_and_vocabulary(monkeypatch, tmp_path):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    options = TokenizerOptions(tokenizer="bpe", vocab=259)
    corpus = TwoParts("ab" * 50, "xyxy" * 900)
    assert not is_ready(options, corpus)
    tokenizer = open_tokenizer(options, corpus)
    assert [token for token in tokenizer.token_bytes if len(token) > 1] == [b"ab", b"abab"]
    assert is_ready(options, corpus)
    files = list(cache.folder("tokenizers").glob("*.json"))
    same_key = TwoParts("never read", "")
    assert open_tokenizer(options, same_key).definition == tokenizer.definition
    assert list(cache.folder("tokenizers").glob("*.json")) == files
    assert not is_ready(options, TwoParts("", "", key="another"))
    assert not is_ready(TokenizerOptions(tokenizer="bpe", vocab=260), corpus)


def test_a_tokenizer_that_cannot_be_saved_is_reported_with_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    options, corpus = TokenizerOptions(tokenizer="bpe", vocab=259), TwoParts("ab" * 50, "")
    forbidden = PermissionError(errno.EACCES, "Permission denied")

    def refuse(*args: object) -> None:
        raise forbidden

    for place in ("filelock.FileLock.acquire", "tasks.storage.cache.write_atomically"):
        with monkeypatch.context() as patched:
            patched.setattr(place, refuse)
            message = error_of(open_tokenizer, options, corpus)
            for part in (f"{tmp_path}/tokenizers ", "Permission denied", "set SUITE_CACHE"):
                assert part in message
    assert not is_ready(options, corpus)
    assert open_tokenizer(options, corpus).vocab == 259


def altered(definition: str, **changes) -> str:
    return json.dumps({**json.loads(definition), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}},
    ],
)
def test_a_tokenizer_that_loses_part_of_a_text_is_refused(trained, changes):
    message = error_of(BpeTokenizer, altered(trained, **changes), 0, "mine.json")
    assert message.startswith("mine.json does not reproduce every text")
    assert "use bytes or bpe" in message


def test_a_vocabulary_that_lacks_a_byte_or_has_dropout_or_affixes_is_refused(trained):
    model = json.loads(trained)["model"]
    less = {token: i for token, i in model["vocab"].items() if token != "q"}
    merges = [pair for pair in model["merges"] if "q" not in "".join(pair)]
    less = {token: i for token, i in less.items() if "q" not in token}
    affixes = ({**model, "continuing_subword_prefix": "##"}, {**model, "end_of_word_suffix": "</w>"})
    for changed in ({**model, "vocab": less, "merges": merges}, {**model, "dropout": 0.1}, *affixes):
        message = error_of(BpeTokenizer, altered(trained, model=changed))
        assert "does not reproduce every text" in message


@pytest.mark.parametrize("definition", ["{}", "[]", "not json", '{"model": 3}', '{"model": {"type": "BPE"}}'])
def test_a_file_that_is_not_a_tokenizer_is_named(definition):
    message = error_of(BpeTokenizer, definition, 0, "mine.json")
    assert message.startswith("mine.json is not a tokenizer.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": None}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": 3}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [None]}},
        {"pre_tokenizer": ["ByteLevel"]},
        {"model": {"type": "BPE", "vocab": None}},
        {"model": {"type": "BPE", "vocab": [["a"]]}},
    ],
)
def test_a_tokenizer_with_a_part_of_the_wrong_type_is_refused(trained, changes):
    message = error_of(BpeTokenizer, altered(trained, **changes), 0, "mine.json")
    assert message.startswith(("mine.json is not a tokenizer.json", "mine.json does not reproduce every text"))


def test_the_vocabulary_is_filled_in_and_a_wrong_one_is_refused(tmp_path, trained):
    path = tmp_path / "mine.json"
    path.write_text(trained, "utf-8")
    assert TokenizerOptions().vocab == 257
    assert TokenizerOptions(tokenizer="bpe").vocab == 8192
    assert TokenizerOptions(tokenizer="gpt2").vocab == 50257
    mine = TokenizerOptions(tokenizer=str(path))
    assert mine.vocab == 400
    assert mine.portable()["tokenizer"] == "tokenizer.json"
    assert TokenizerOptions(**mine.model_dump()) == mine
    for wrong in (
        {"vocab": 300},
        {"tokenizer": "gpt2", "vocab": 257},
        {"tokenizer": "bpe", "vocab": 257},
        {"tokenizer": str(tmp_path)},
    ):
        with pytest.raises(ValueError, match=r"vocab|tokenizer"):
            TokenizerOptions(**wrong)


def test_gpt2s_tokenizer_without_a_network_is_refused_with_a_suggestion(monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    message = error_of(open_tokenizer, TokenizerOptions(tokenizer="gpt2"), TwoParts("", ""))
    assert "openai-community/gpt2" in message
    assert "--set tokenizer=PATH" in message
