"""What is wrong with a store, in a few words for one line."""

from __future__ import annotations

_REASONS = (
    ("connection refused", "cannot reach {store}: nothing answers there"),
    ("name or service not known", "cannot reach {store}: no such host"),
    ("name resolution", "cannot reach {store}: no such host"),
    ("timed out", "{store} does not answer in time"),
    ("timeout", "{store} does not answer in time"),
    ("no space left", "no space left on the disk of {store}"),
    ("disk is full", "no space left on the disk of {store}"),
    ("disk i/o error", "the disk of {store} fails"),
    ("database is locked", "{store} is busy"),
    ("readonly database", "{store} is read-only"),
    ("read-only file system", "{store} is read-only"),
    ("permission denied", "no permission to write to {store}"),
    ("unable to open database", "{store} cannot be opened"),
    ("file is not a database", "{store} is damaged: not a database"),
    ("malformed", "{store} is damaged"),
    ("401", "{store} asks for a user and a password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"),
    ("403", "{store} does not let this user in"),
)


def explain(error: BaseException, store: str) -> str:
    """One short phrase; errors not known here show their first line."""
    text = f"{type(error).__name__}: {error}"
    lowered = text.lower()
    for sign, phrase in _REASONS:
        if sign in lowered:
            return phrase.format(store=store)
    return f"{store}: {text.splitlines()[0][:160]}"
