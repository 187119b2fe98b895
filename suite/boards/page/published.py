"""The files of the published boards: generated from records, never edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suite.errors import UserError
from tasks.storage.cache import write_text

if TYPE_CHECKING:
    from suite.boards.board import Board


def generated(boards: Sequence[Board], links: Mapping[str, str]) -> dict[str, str]:
    """All files of the published boards.

    Args:
        boards: in their order.
        links: hash of a record → its address relative to the folder of the files.

    Returns:
        Name of each file → its content; the same for the same records, byte for byte.
    """
    from suite.boards.markdown import markdown
    from suite.boards.page.page import document, pages
    from suite.boards.page.tables import comma_separated, latex

    tables = [latex(board) for board in boards if board.rows]
    return {
        **pages(boards, links),
        "board.json": document(boards),
        "boards.md": "# Boards\n\nGenerated from the records; do not edit.\n\n" + "\n".join(map(markdown, boards)),
        "boards.csv": comma_separated(boards),
        "boards.tex": "% Generated from the records; do not edit.\n" + "\n".join(tables),
    }


def write(files: Mapping[str, str], folder: Path) -> None:
    """Writes the files, each whole or not at all.

    Args:
        files: from `generated`.
        folder: made where it is missing.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_text(folder / name, content)


def check(files: Mapping[str, str], folder: Path, *, whole: bool = True) -> None:
    """Compares files with those in a folder.

    Args:
        files: from `generated`.
        folder: which should hold them.
        whole: whether these are the files of all boards: then no other file may be next to their pages.

    Raises:
        UserError: a file is missing, or was edited, or is older than its records, or is the page of no board.
    """
    from suite.boards.page.page import BOARDS

    for path in sorted((folder / BOARDS).rglob("*")) if whole else ():
        if not path.is_dir() and path.relative_to(folder).as_posix() not in files:
            raise UserError(f"{path} is the page of no board in these records; delete it")
    for name, content in files.items():
        path = folder / name
        found = path.read_text("utf-8") if path.is_file() else None
        if found != content:
            what = "is missing" if found is None else "is not what its records give"
            raise UserError(f"{path} {what}; boards are generated: suite leaderboard --records … --output {folder}")
