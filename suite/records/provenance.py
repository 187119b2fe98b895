"""Where a result comes from: code, package versions, hardware, memory."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

import suite
from suite.records.schema import Code, Hardware

PACKAGES = ("torch", "torchvision", "timm", "triton", "gluonts", "datasets", "mlflow", "numpy", "pandas", "pydantic")


def _git(*arguments: str) -> str | None:
    root = Path(suite.__file__).resolve().parents[1]
    if not (root / ".git").exists():  # an installed package is in no checkout; a repository further up is another one
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def code(task_origin: str, mixer_origin: str) -> Code:
    """The suite's version and commit, and where the run's task and mixer come from."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    dirty = None if status is None else bool(status)
    return Code(
        version=suite.__version__,
        git_sha=_git("rev-parse", "HEAD"),
        git_dirty=dirty,
        task_origin=task_origin,
        mixer_origin=mixer_origin,
    )


def packages() -> dict[str, str]:
    """The versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def hardware(device: torch.device) -> Hardware:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Hardware(
        platform=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        device=name,
        threads=torch.get_num_threads(),
    )


def peak_memory_bytes(device: torch.device) -> int:
    """The GPU's peak allocation, or this process's peak resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
