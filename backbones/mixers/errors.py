"""The exception for a mixer that cannot be used, and the hint at the name that was probably meant."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from pathlib import Path


class MixerError(Exception):
    """A mixer that cannot be found, loaded or configured. The message is one line for the user."""

    exit_code = 2


#: What others call it: a word and the mixers that it may mean, of which the first registered one is suggested.
OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "attention": ("softmax",),
    "self-attention": ("softmax",),
    "mha": ("softmax",),
    "sdpa": ("softmax",),
    "flash-attention": ("softmax",),
    "transformer": ("softmax",),
    "gpt": ("softmax",),
    "mamba": ("mamba2", "ssm"),
    "mamba-2": ("mamba2", "ssm"),
    "ssd": ("mamba2",),
    "xlstm": ("mlstm",),
    "lstm": ("mlstm",),
    "s4": ("ssm",),
    "s6": ("ssm",),
    "state-space": ("ssm",),
    "linear-attention": ("linear",),
    "gated-linear-attention": ("gla", "gla-layer"),
    "lightning-attention": ("simple-gla",),
    "attention-free": ("aft",),
    "aft-simple": ("aft",),
    "free-energy": ("fem",),
    "free-energy-mixer": ("fem",),
    "qknorm": ("qk-norm",),
    "diff-attention": ("differential",),
    "diff-transformer": ("differential",),
    "forgetting-attention": ("fox",),
    "forgetting-transformer": ("fox",),
    "gated": ("gated-attention",),
    "exclusive": ("xsa",),
    "exclusive-self-attention": ("xsa",),
    "attention-sink": ("sink",),
    "grouped-query": ("gqa",),
    "mqa": ("gqa",),
    "delta-net": ("deltanet",),
    "delta-rule": ("deltanet",),
    "gdn": ("gated-deltanet",),
    "kimi": ("kda",),
    "kimi-linear": ("kda",),
    "kimi-delta-attention": ("kda",),
    "rwkv": ("rwkv7",),
    "rwkv-7": ("rwkv7",),
    "hgrn": ("fla/hgrn2",),
    "mlp": ("hypermlp",),
    "none": ("no-mixing",),
    "identity": ("no-mixing",),
}


def did_you_mean(given: str, allowed: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean 'fem'?` where an allowed name is the given one in other capitals, another word for it, or close
    to it; else `otherwise`.
    """
    names = set(allowed)
    meant = {word: next(n for n in others if n in names) for word, others in OTHER_WORDS.items() if names & {*others}}
    meant |= {name.casefold(): name for name in sorted(names, reverse=True)}
    word = given.casefold()
    near = [name for name in (word, word.replace("_", "-")) if name in meant][:1]
    near = near or difflib.get_close_matches(word, meant, n=1, cutoff=0.5)
    return f"; did you mean {meant[near[0]]!r}?" if near else otherwise


def classes_in(path: Path) -> tuple[str, ...]:
    """The classes of a Python file that may be mixers, read without executing it: none of options or states."""
    try:
        found = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    classes = [node for node in found if isinstance(node, ast.ClassDef) and node.bases]
    bases = {node.name: ast.unparse(node.bases[0]).rpartition(".")[2] for node in classes}
    return tuple(name for name, base in bases.items() if not base.endswith(("Config", "Options", "State", "Tuple")))


def class_missing(kind: str, file: str) -> str:
    """The message for a file that was given without the class in it.

    Args:
        kind: of what the class would be, mixer or task.
        file: as it was given.

    Returns:
        One line that names the file's classes.
    """
    if not Path(file).is_file():
        return f"{kind} file {file!r} does not exist (expected: path/to/file.py:Class)"
    there = classes_in(Path(file))
    which = f"; its classes: {', '.join(f'{file}:{name}' for name in there)}" if there else ", and it has none"
    return f"{kind} {file!r} is a file without the name of a class (expected: path/to/file.py:Class){which}"
