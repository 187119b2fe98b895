"""The exception for a mixer that cannot be used."""

from __future__ import annotations


class MixerError(Exception):
    """A mixer that cannot be found, loaded or configured. The message is one line for the user."""

    exit_code = 2
