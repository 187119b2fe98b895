"""What is wrong with an entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: `ranges`: form, sizes, names, and the values that a figure can have. `recount`: what follows from something else is
#: derived again. `replay`: first steps are trained again. `reproduced`: runs are trained again to their ends.
Check = Literal["ranges", "recount", "replay", "reproduced"]


@dataclass(frozen=True)
class Fault:
    """One fault.

    place: the file, relative to the folder that is verified; or the row.
    message: what is wrong, in one line.
    check: what found it.
    """

    place: str
    message: str
    check: Check

    @property
    def line(self) -> str:
        """The fault as commands print it."""
        return f"{self.place}: {self.message} [{self.check}]"
