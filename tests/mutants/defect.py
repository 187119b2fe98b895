"""One planted defect, and what may be done with its text without running anything."""

from __future__ import annotations

import ast
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Defect:
    """A mistake that someone could make, and the tests that should notice it.

    area: the part of the catalogue that it belongs to.
    file: relative to the repository.
    text: occurs exactly once in the file.
    replacement: what the file has instead.
    why: one line, why that is wrong.
    tests: test files, folders, or single tests as `file::test`, relative to the repository; no other test is run, and
        nothing is claimed of the others.
    """

    area: str
    file: str
    text: str
    replacement: str
    why: str
    tests: tuple[str, ...]

    @property
    def test_paths(self) -> tuple[str, ...]:
        """The files and folders of its tests."""
        return tuple(test.partition("::")[0] for test in self.tests)

    @property
    def is_python(self) -> bool:
        return self.file.endswith(".py")

    def planted(self, root: Path) -> str:
        """The file's content with the defect. Raises ValueError where the text does not occur exactly once."""
        content = (root / self.file).read_text("utf-8")
        found = content.count(self.text)
        if found != 1:
            raise ValueError(f"{self.file}: the text occurs {found} times, not once: {self.text!r}")
        return content.replace(self.text, self.replacement)

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def same_python(one: str, other: str) -> bool:
    """Whether two sources are the same program. Raises SyntaxError where one does not parse."""
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
