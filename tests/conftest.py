"""Property-based tests try the same examples in every run; `--hypothesis-profile=explore` tries others, and more of what was never seen."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")
