"""One-line explanations of errors of a store."""

from __future__ import annotations

import re

_REASONS = (
    ("connection refused", "cannot reach {store}: no server is running there"),
    ("name or service not known", "cannot reach {store}: no such host"),
    ("name resolution", "cannot reach {store}: no such host"),
    ("timed out", "{store} does not respond in time"),
    ("timeout", "{store} does not respond in time"),
    ("no space left", "no space left on the disk of {store}"),
    ("disk is full", "no space left on the disk of {store}"),
    ("disk i/o error", "the disk of {store} reports an error"),
    ("database is locked", "{store} is busy"),
    ("readonly database", "{store} is read-only"),
    ("read-only file system", "{store} is read-only"),
    ("permission denied", "no permission to write to {store}"),
    ("unable to open database", "{store} cannot be opened"),
    ("file is not a database", "{store} is damaged: not a database"),
    ("malformed", "{store} is damaged"),
    ("read-only transaction", "{store} is read-only"),
    ("password authentication failed", "{store} refuses this user or password"),
    ("connection slots are reserved", "{store} has no free connection"),
    ("too many clients", "{store} has no free connection"),
    ("too many connections", "{store} has no free connection"),
    ("out-of-date database schema", "{store} has the schema of another MLflow version (suite doctor --store)"),
    ("no module named 'psycopg'", "{store} needs a driver: write postgresql+psycopg2:// in MLFLOW_TRACKING_URI"),
    ("no module named 'psycopg2'", "{store} needs a driver: pip install 'mixer-suite[scale]'"),
    ("401", "{store} requires a user and a password (set MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"),
    ("403", "{store} denies access to this user"),
)


def explain(error: BaseException, store: str) -> str:
    """One short phrase; for any other error, its first line."""
    text = f"{type(error).__name__}: {error}"
    lowered = text.lower()
    for pattern, phrase in _REASONS:
        if re.search(rf"(?<!\d){re.escape(pattern)}(?!\d)", lowered):  # 401 is no part of a port or of an id
            return phrase.format(store=store)
    return f"{store}: {text.splitlines()[0][:160]}"
