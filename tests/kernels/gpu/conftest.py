"""Triton chooses its interpreter when it is imported: `interpreted/` is for a process of its own, which
`test_interpreted.py` starts.
"""

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
