"""What the tests read of a corpus: its documents, its pieces, and that reading goes on behind any block."""

from __future__ import annotations

import json


def documents(corpus, state=None) -> dict[str, list[str]]:
    """The documents of every split, put together from their pieces."""
    made: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    parts: dict[str, str] = dict.fromkeys(made, "")
    for block in corpus.blocks(state):
        for piece in block.pieces:
            parts[piece.split] += piece.text
            if piece.ends:
                made[piece.split].append(parts[piece.split])
                parts[piece.split] = ""
    assert not any(parts.values())
    return made


def pieces(corpus, state=None) -> list[tuple[str, str, bool]]:
    return [(p.split, p.text, p.ends) for block in corpus.blocks(state) for p in block.pieces]


def check_resumes(corpus) -> None:
    """Behind any block the rest is what an uninterrupted reading gives, the state having gone through JSON."""
    blocks = list(corpus.blocks())
    whole = pieces(corpus)
    assert len(blocks) > 2
    for i in {0, 1, len(blocks) // 2, len(blocks) - 2, len(blocks) - 1}:
        read = sum(len(block.pieces) for block in blocks[: i + 1])
        assert pieces(corpus, json.loads(json.dumps(blocks[i].state))) == whole[read:]
