"""Output that never raises and shows text without obeying it; how figures are written."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from suite.safe_text import one_line, safe, visible

if TYPE_CHECKING:  # tasks.base imports pydantic, which the command line loads late
    from tasks.base import Metric


class Output(io.TextIOBase):
    """`sys.stdout` or `sys.stderr`, as it is when something is written. What a closed pipe or a terminal that is gone
    refuses is dropped: output must not end a run.
    """

    def __init__(self, name: str) -> None:
        self.stream_name = name

    def write(self, text: str) -> int:
        stream = self._stream()
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode(stream.encoding, "replace").decode(stream.encoding))
        except (OSError, ValueError, AttributeError) as problem:  # it is closed, or there is none
            self._give_up(problem)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream().flush()
        except (OSError, ValueError, AttributeError) as problem:
            self._give_up(problem)

    def isatty(self) -> bool:
        try:
            return bool(self._stream().isatty())
        except (OSError, ValueError, AttributeError):
            return False

    def fileno(self) -> int:
        return int(self._stream().fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream(), "encoding", None) or "utf-8"

    def _stream(self) -> Any:
        stream = getattr(sys, self.stream_name)
        return getattr(stream, "rich_proxied_file", stream)  # which a progress bar puts in its place

    def _give_up(self, problem: Exception) -> None:
        """Sends whatever still comes, from libraries too and at the interpreter's end, nowhere."""
        if isinstance(problem, OSError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                number = self._stream().fileno()
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), number)


stdout, stderr = Output("stdout"), Output("stderr")


class SafeConsole(Console):
    """A console that shows text and obeys none of it: text is no markup and no emoji code, control characters are
    visible, secrets are left out. For styled text print a `marked` one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it, of safe text.

        Args:
            text: any text: an argument of `print`, a table's cell or its title.
            options: rich's.

        Returns:
            The text.
        """
        return super().render_str(safe(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich does it, with visible control characters in whatever is rendered.

        Args:
            renderable: rich's.
            options: rich's.

        Yields:
            Segments.
        """
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)


err = SafeConsole(file=cast(IO[str], stderr))


def marked(template: str, *values: object) -> Text:
    """Styled text.

    Args:
        template: rich's markup, with `{}` for each value.
        values: shown as text in one line, whatever they contain.

    Returns:
        The text for a console or a table.
    """
    return Text.from_markup(template.format(*(escape(one_line(str(value))) for value in values)), emoji=False)


def format_number(metric: Metric, value: float, *, signed: bool = False) -> str:
    """A metric's value without its unit: accuracies in percent, others with the metric's number of digits."""
    return f"{100 * value if metric.unit == '%' else value:{'+' if signed else ''}.{metric.digits}f}"


def format_metric(metric: Metric, value: float) -> str:
    """A metric's value as tables show it, with its unit."""
    return f"{format_number(metric, value)}{' ' + metric.unit if metric.unit else ''}"


def duration(seconds: float) -> str:
    """An estimated time, as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def say(note: str) -> None:
    """Prints a note on stderr, unless it is empty."""
    if note:
        err.print(note, soft_wrap=True)


def warn(message: str) -> None:
    """Prints a warning on stderr."""
    err.print(marked("[yellow]warning:[/] {}", message), soft_wrap=True)
