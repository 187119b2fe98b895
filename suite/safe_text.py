"""Text from elsewhere, made safe to show: control characters visible, secrets left out, markup escaped, length cut.

Names of mixers, options, files and classes, cells of data and messages of libraries all reach terminals, logs, Markdown
and the tracking store. Whatever prints or sends text passes it through here (`suite.console.SafeConsole` does for
everything on a terminal), so that no caller has to think of it.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import IO
from urllib.parse import parse_qsl, quote, quote_plus, unquote

QUOTED = 80  # characters of a quoted value in a message
MESSAGE = 2_000  # characters of a message
HIDDEN = "***"
_LONG_QUOTE = re.compile(r"(?<!\w)(['\"])([^'\"]{90,})\1(?!\w)")  # an apostrophe is no quotation mark
#: All but line feed and tab: C0 and C1 controls, what changes the direction of text, invisible characters, line
#: separators, halves of surrogate pairs, and tags.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKDOWN = re.compile(r"[\\`*\[\]|~<>&]")
_HTML = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_SECRET_NAME = (
    r"(?:passw(?:or)?d|passphrase|pwd|token|secret|api[_-]?key|access[_-]?key|account[_-]?key|credentials?|signature"
    r"|authorization)"
)
#: Not the working folders, whose names end like a short form of password.
_SECRET_VARIABLE = re.compile(rf"(?i)^(?!(?:old)?pwd$).*{_SECRET_NAME}(?!iz)(?!.*(?:file|path|dir|url|uri)$)")
_ASSIGNED = re.compile(rf"(?i)({_SECRET_NAME}=)[^\s'\"&,;]+")
#: `X-Api-Key: …`, `"password": "…"`: after a colon from 6 characters on, and no plain `token`, which texts count.
_AFTER_COLON = re.compile(rf"(?i)((?:[_-]token|(?!token){_SECRET_NAME})['\"]?:\s*['\"]?)[^\s'\"&,;]{{6,}}")
#: Further parameters of signed addresses, whose names are words elsewhere.
_SHORT_NAME = r"(?:sig|key|auth|code|pass|pw)"
_SECRET_PARAMETER = re.compile(rf"(?i).*{_SECRET_NAME}.*|{_SHORT_NAME}")
_PARAMETER = re.compile(rf"(?i)([?&]{_SHORT_NAME}=)[^\s'\"&]+")
_USER = re.compile(r"(\w[\w+.-]*://)[^\s'\"<>]*@")
_AUTHORIZATION = re.compile(r"(?i)\b(basic|bearer) [\w+/=.~-]{8,}")
_LEAST = 6  # characters of a secret that is replaced wherever it appears


def visible(text: str) -> str:
    """Text whose control characters are shown instead of obeyed; line feeds and tabs stay.

    Args:
        text: any text.

    Returns:
        The text, a control character as `\\x1b` or `\\u202e`.
    """
    return _CONTROLS.sub(_code, text) if _CONTROLS.search(text) else text


def redacted(text: str) -> str:
    """Text without secrets: credentials and secret parameters of addresses, `password=…`, `X-Api-Key: …`, and the
    values of this process's environment variables that hold secrets.

    Args:
        text: any text that leaves the process.

    Returns:
        The text, each secret as `***`.
    """
    for secret in _secrets(frozenset(os.environ.items())):
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", text))
    for assigned in (_ASSIGNED, _AFTER_COLON):
        text = assigned.sub(rf"\1{HIDDEN}", text)
    return _AUTHORIZATION.sub(rf"\1 {HIDDEN}", text)


def safe(text: str) -> str:
    """What may be printed: without secrets and control characters.

    Args:
        text: any text.

    Returns:
        `visible` of `redacted`.
    """
    return visible(redacted(text))


def one_line(text: str) -> str:
    """Safe text in one line.

    Args:
        text: any text.

    Returns:
        The text, each run of white space as one space.
    """
    return safe(" ".join(text.split()))


def markdown_text(text: str) -> str:
    """Text as the same text in Markdown, of which HTML is a part.

    Args:
        text: any text.

    Returns:
        One line in which nothing is markup, a table's separator, a link or a tag.
    """
    return _MARKDOWN.sub(lambda found: _HTML.get(found[0], f"\\{found[0]}"), one_line(text))


def cut(text: str, limit: int = QUOTED) -> str:
    """A text of at most `limit` characters.

    Args:
        text: any text.
        limit: its length, the mark of a cut included.

    Returns:
        The text, or its beginning and its end, where a path has the name of its file, around an ellipsis.
    """
    end = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[: limit - 1 - end]}…{text[len(text) - end :]}"


def shortened(message: str) -> str:
    """A message of bounded length: values between quotes, which come from files and command lines, are cut.

    Args:
        message: any message.

    Returns:
        The message, each quoted value of at most about 80 characters, and about 2,000 in all.
    """
    if len(message) <= QUOTED:
        return message
    return cut(_LONG_QUOTE.sub(lambda found: f"{found[1]}{cut(found[2])}{found[1]}", message), MESSAGE)


def quoted(value: object, limit: int = QUOTED) -> str:
    """A value as a message quotes it: as Python writes it, cut.

    Args:
        value: any value; an integer of any length too.
        limit: characters.

    Returns:
        One line.
    """
    if isinstance(value, str):
        return cut(repr(cut(value, limit - 2)), limit)
    if isinstance(value, int) and value.bit_length() > 4 * limit:
        return f"an integer of {value.bit_length()} bits"
    try:
        return cut(repr(value), limit)
    except (ValueError, RecursionError):  # a number of too many digits, or a structure too deep
        return f"a {type(value).__name__} that is too large to show"


def split_address(address: str) -> tuple[str, str, str]:
    """Separates what may be secret in an address. A password may contain any character but `?` and `#`.

    Args:
        address: `scheme://user:password@host/path?query`.

    Returns:
        The credentials, the address without them and without the query, and the query.
    """
    scheme, _, rest = address.strip().partition("://")
    rest, _, query = rest.partition("#")[0].partition("?")
    credentials, _, host = rest.rpartition("@")
    return credentials, f"{scheme}://{host}", query


class RedactingStream:
    """A text stream that writes `redacted` text: for logs to which libraries write too."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text without its secrets.

        Args:
            text: any text.

        Returns:
            The number of characters taken.
        """
        self._stream.write(redacted(text))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


@lru_cache(maxsize=4)
def _secrets(environment: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    """The secrets in environment variables, in every spelling, the longest first."""
    found: set[str] = set()
    for name, value in environment:
        if _SECRET_VARIABLE.search(name):
            found.add(value)
        if "://" in value:
            found |= _parts_of_address(value)
    spelled = {
        form for secret in found for form in (secret, unquote(secret), quote(secret, safe=""), quote_plus(secret))
    }
    return tuple(sorted((form for form in spelled if len(form) >= _LEAST), key=len, reverse=True))


def _parts_of_address(address: str) -> set[str]:
    """The password and the secret values of an address's query."""
    credentials, _, query = split_address(address)
    user, _, password = credentials.partition(":")
    values = {value for name, value in parse_qsl(query) if _SECRET_PARAMETER.fullmatch(name)}
    return {password or user} | values
