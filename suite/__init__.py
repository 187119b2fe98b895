"""Mixer Suite: which sequence mixer is really better, at equal cost?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _check_own_packages(names: tuple[str, ...] = ("tasks", "backbones", "kernels")) -> None:
    """Raises ImportError if Python finds another project's package under one of the names that this project uses
    (`kernels`, for example, is also a package of Hugging Face).
    """
    root = Path(__file__).resolve().parents[1]
    for name in names:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != root / name:
            where = f"the one at {found}" if found else "none"
            raise ImportError(
                f"mixer-suite needs its own package {name!r} ({root / name}), but Python finds {where}; "
                f"uninstall the other project, remove its folder from PYTHONPATH, or use a separate environment"
            )


_check_own_packages()
