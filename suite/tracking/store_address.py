"""The address of the store of runs: `MLFLOW_TRACKING_URI`, or the embedded store."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from suite.safe_text import split_address


def tracking_uri(home: Path) -> str:
    """The address of the store: `MLFLOW_TRACKING_URI` if it is set, else the embedded store under `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{home.resolve() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def is_embedded(uri: str) -> bool:
    return uri.startswith("sqlite")


def public_uri(uri: str) -> str:
    """The address as a record may show it: without credentials, and without the folders of an embedded store."""
    if is_embedded(uri):
        return f"sqlite:///{Path(uri).name}"
    return split_address(uri)[1].rstrip("/") if "://" in uri else uri


def state_key(uri: str) -> str:
    """The address as the state of a delivery names it, a file that holds neither passwords nor the values of a query.

    Args:
        uri: from `tracking_uri`.

    Returns:
        The address, in full where it can hold no secret.
    """
    if is_embedded(uri):
        return uri.partition("?")[0]
    return public_uri(uri) if "@" in uri or "?" in uri or "#" in uri else uri
