"""The project's text is standard English in the field's standard terms: idioms that must not appear, names of tests."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_UNITS = (
    "head|token|row|channel|layer|image|window|step|seed|mixer|board|batch|run|class|query|key|value|machine|core|file|task|byte|check|"
    "position|sequence|season|block|group|split|document|series|validation|second|concept|feature|column|line|test|command|chunk|call"
)
_COUNTED = (
    "parameters|flops?|bytes|bits|rows?|scalars?|widths?|weights|decays?|folders?|lines?|figures|indicators?|values?|examples?|"
    "one|two|three|four|experiment|process|thread|width|table|number|numbers|checkpoint|validations|record|file|product|products|norm"
)
#: pattern: what to write instead
BANNED = {
    rf"\b(?:{_COUNTED}) an? (?:\w+ )?(?:{_UNITS})s?\b": "per head, per token, per row",
    r"\bmend(?:s|ed|ing)?\b": "fix, fixed",
    r"\banew\b": "again, from scratch",
    r"\bgo(?:es|ing|ne)? on\b|\bwent on\b": "continue, resume",
    r"\bt(?:ake|akes|aken|ook) up\b": "resume; use",
    r"\bstands?\b(?! for\b)|\bstood\b": "is, is shown",
    r"\bholds of\b|\bhold of\b": "is true for",
    r"\bbeside\b": "next to, compared with",
    r"\bbehind\b": "after",
    r"\btells?\b|\btold\b": "reports, shows, says",
    r"\bsays? so\b|\bsaid so\b": "reports it",
    r"\bthe (?:whole story|news)\b": "the full traceback; the result",
    r"\basked for\b": "requested",
    r"\bmistakes? in what\b|\bwhat was given\b": "invalid input, the given value",
    r"\bshares? of\b": "fraction of",
    r"\blargest gradient norm\b": "gradient clipping threshold",
    r"\blikeliest\b": "most likely; greedy decoding",
    r"\bfresh (?:weights|parameters|head|token embeddings)\b": "initial",
    r"\brooms?\b|\bhouse\b|\bshel(?:f|ves)\b": "package, module, results folder",
    r"\bcontests?\b|\bpeers?\b": "comparison, competitor",
    r"\bhost forms?\b": "host prior",
    r"\bplain forms?\b|\bobvious forms?\b": "naive reference implementation",
    r"\bnobody'?s\b|\bwithout a word\b|\bknown or not\b": "unspecified, silently, registered or not",
    r"\bper cent\b|\bupon\b|\bhas no say\b|\bword of\b": "plain words",
}
#: Identifiers and quoted data where a banned word is a name that others rely on.
ALLOWED = re.compile(r"takes up to|take up to|took up to|(?:stood|stand)-in|\"contests\"")
SUFFIXES = (".py", ".md", ".toml", ".cpp", ".h", ".yml")
SKIPPED = ("tests/test_plain_english.py", "leaderboards/", "LICENSE", "tasks/embedded/NOTICE.md", "constraints.txt")


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in listed if name.endswith(SUFFIXES) and not name.startswith(SKIPPED)]


def words_of(text: str) -> str:
    """The text with snake_case read as words, so that names of functions and tests are checked too."""
    return text.replace("_", " ")


def idioms(text: str) -> list[tuple[int, str, str]]:
    """(line number, what was found, what to write) of each banned idiom, in any case of its letters."""
    words = words_of(text).lower()
    return sorted(
        (words.count("\n", 0, match.start()) + 1, match.group(0), instead)
        for pattern, instead in BANNED.items()
        for match in re.finditer(pattern, words)
        if not ALLOWED.search(words[max(0, match.start() - 12) : match.end() + 12])
    )


@pytest.mark.parametrize("folder", ["suite", "tasks", "backbones", "kernels", "tests", "docs", "examples", "."])
def test_no_banned_idiom(folder):
    wrong = []
    for path in tracked_files():
        name = path.relative_to(ROOT).as_posix()
        if (name.split("/")[0] if "/" in name else ".") == folder:
            wrong += [f"{name}:{n}: {what!r}: write {instead}" for n, what, instead in idioms(path.read_text("utf-8"))]
    assert not wrong, "\n".join(wrong)


def test_the_list_finds_what_it_bans():
    assert [what for _, what, _ in idioms("The run goes on anew, 3 FLOPs a token beside it.")] == [
        "anew", "beside", "flops a token", "goes on"
    ]  # fmt: skip
    assert idioms("stands for a run; takes up to 2 GB; a token of the vocabulary") == []


def test_test_names_are_sentences_of_at_most_80_characters():
    long = []
    for path in tracked_files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == "tests":
            names = re.findall(r"^\s*def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
            long += [f"{path.relative_to(ROOT)}: {name} ({len(name)})" for name in names if len(name) > 80]
    assert not long, "\n".join(long)
