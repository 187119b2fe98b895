"""Attacks on `suite verify`: each forges a sound entry as an author could, who computes every hash again.

Every entry of `ATTACKS` has the name that docs/security.md has for it, the check that must find it, and a part of the
message that it must give.
"""

from tests.suite.submissions.attacks import beyond_the_entry, on_configs, on_figures, on_form, on_races, on_sources
from tests.suite.submissions.attacks.attack import ATTACKS, Attack

__all__ = ["ATTACKS", "KINDS", "Attack"]

#: Importing these lists their attacks.
KINDS = (on_figures, on_races, on_configs, on_sources, on_form, beyond_the_entry)
