"""Sizes on which Python, which allocates buffers, and C++, which fills them, must agree. They are written only here.

`kernels.cpu.library` passes each to the C++ compiler as a macro (`max_rank` as `SUITE_MAX_RANK`), `sizes.h` makes them
constants, and a library that was built with other values is refused when it is loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Sizes:
    rows_per_part: int = 64  # rows of one partial sum: the gradient of β
    linear_chunk: int = 64  # tokens of a chunk of linear attention
    scan_chunk: int = 16  # tokens between two stored states of the selective scan
    scan_channels: int = 64  # channels of a block of any scan
    score_sets: int = 2  # most score sets of lag mixing, and the bit of the mixing after the activation
    max_rank: int = 16  # largest rank of lag mixing's tables
    table_padding: int = 16  # columns that lag mixing reads beyond the end of a table

    def macros(self) -> dict[str, int]:
        """Name and value of each macro of the C++ sources."""
        return {f"SUITE_{name.upper()}": value for name, value in asdict(self).items()}

    def flags(self) -> tuple[str, ...]:
        """Flags for the C++ compiler."""
        return tuple(f"-D{name}={value}" for name, value in self.macros().items())


SIZES = Sizes()
