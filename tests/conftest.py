"""Property-based tests try the same examples in every run; `--hypothesis-profile=explore` tries others, and more of
what was never seen.

Nothing is fetched from the hub, and what tests prepare goes to a cache of their own.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from hypothesis import settings

from kernels.cpu.library import library
from kernels.cpu.process import trusted

for variable in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "SUITE_HOME", "SUITE_TRACKING"):
    os.environ.pop(variable, None)  # the tester's terminal and settings do not decide what the commands print
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # tests started with nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # its client reads it when it is imported
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """A cache of this session, with the user's compiled kernels, which take 10 to 20 s to build."""
    library()
    cache = tmp_path_factory.mktemp("cache")
    if trusted.folder().is_dir():
        shutil.copytree(
            trusted.folder(), cache / "kernels", ignore=lambda folder, names: [n for n in names if "." not in n]
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUITE_CACHE", str(cache))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes share the tests: what trains or reads once for a whole file stays together, and so do all
    tests of tracking (importing MLflow and creating a store takes 5 seconds); the rest is distributed freely.
    """
    for item in items:
        parts = item.path.relative_to(item.config.rootpath).parts[1:]
        if parts[:2] == ("suite", "tracking"):
            item.add_marker(pytest.mark.xdist_group("tracking"))
        elif parts[0] in ("suite", "tasks") or len(parts) == 1:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
