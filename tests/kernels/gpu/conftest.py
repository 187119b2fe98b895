"""Triton chooses its interpreter when it is imported: `test_interpreted.py` runs `interpreted/` in its own process."""

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
