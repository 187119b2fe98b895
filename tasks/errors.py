"""The exception for data that cannot be used."""

from __future__ import annotations


class DataError(Exception):
    """The data are missing, damaged or not what the task expects. The message is one line, written for the user."""

    exit_code = 2
