"""How large the tests are: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: Tokens: one, around a block and a chunk, an odd number, and long.
LENGTHS = (1, 17) if INTERPRETED else (1, 63, 64, 65, 257, 1024, 4096)
#: A result that moves between equal calls is a race.
REPEATS = 2 if INTERPRETED else 5
