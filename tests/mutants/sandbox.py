"""A copy of the tree in which defects are planted, with caches and runs of its own. The working tree is only read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from kernels.cpu.sizes import SIZES
from tests.mutants.defect import Defect

ROOT = Path(__file__).resolve().parents[2]
Verdict = Literal["caught", "survived", "timed out", "invalid"]
PASSED, FAILED, INTERRUPTED = 0, 1, 2  # pytest's exit codes; a file that cannot be imported counts as interrupted
LINES_OF_ERRORS = 15


def tree_files(root: Path = ROOT) -> list[str]:
    """The files of the tree, those included that are not committed yet."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    return sorted(name for name in listed.decode().split("\0") if name and (root / name).is_file())


class Sandbox:
    """One copy; its compiled library is its own too, so that a defect in a C++ source is compiled."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self.tree = folder / "tree"
        for name in tree_files(root):
            target = self.tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
        own = {"SUITE_CACHE": "cache", "XDG_CACHE_HOME": "cache", "SUITE_HOME": "runs", "TMPDIR": "tmp"}
        for name in own.values():
            (folder / name).mkdir(exist_ok=True)
        self.environment = {
            **os.environ,
            **{name: str(folder / place) for name, place in own.items()},
            "PYTHONPATH": str(self.tree),
            "PYTHONDONTWRITEBYTECODE": "1",  # a changed file of equal size and time would be read from bytecode
            "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def try_defect(self, defect: Defect, timeout_s: float) -> dict[str, object]:
        """Plants a defect, runs its tests up to the first failure, and takes the defect out again."""
        path = self.tree / defect.file
        before = path.read_text("utf-8")
        began = time.monotonic()
        try:
            path.write_text(defect.planted(self.tree), "utf-8")
            fault = "" if defect.is_python else compile_error(path)
            verdict: Verdict = "invalid"
            if not fault:
                verdict, fault = self.tests(defect.tests, timeout_s)
        except ValueError as error:
            verdict, fault = "invalid", str(error)
        finally:
            path.write_text(before, "utf-8")
        return {**defect.as_json(), "verdict": verdict, "by": fault, "seconds": round(time.monotonic() - began, 1)}

    def tests(self, paths: Sequence[str], timeout_s: float) -> tuple[Verdict, str]:
        """Runs the fast tests of files and folders, and single tests of any kind, up to the first failure; also returns
        which failed, or why there is no result.
        """
        single = [path for path in paths if "::" in path]
        others = [path for path in paths if "::" not in path]
        for marks, group in (("not slow and not scale", others), ("", single)):
            if group and (ended := self._pytest(marks, group, timeout_s))[0] != "survived":
                return ended
        return "survived", ""

    def _pytest(self, marks: str, paths: Sequence[str], timeout_s: float) -> tuple[Verdict, str]:
        command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-m", marks, "--tb=no", "-rfE", *paths]
        # a session of its own: what tests start ends with them
        process = subprocess.Popen(
            command,
            cwd=self.tree,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return "timed out", f"no result after {timeout_s:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lines = output.strip().splitlines()
        if process.returncode == PASSED:
            return "survived", ""
        named = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
        if process.returncode in (FAILED, INTERRUPTED) and named:
            return "caught", named[0]
        return "invalid", f"pytest ended with {process.returncode}: {' | '.join(lines[-LINES_OF_ERRORS:])}"


def compile_error(source: Path) -> str:
    """Why a C++ source does not compile, empty if it does: tests would fail for another reason than the defect's."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler is None:
        return "no C++ compiler is on the PATH"
    done = subprocess.run(
        [compiler, *SIZES.flags(), "-std=c++17", "-fsyntax-only", str(source)], capture_output=True, text=True
    )
    return "" if done.returncode == 0 else f"it does not compile: {done.stderr.strip().splitlines()[0]}"
