"""Mixer Suite: which sequence mixer is really better, at equal cost?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _check_neighbours(names: tuple[str, ...] = ("tasks", "backbones", "kernels")) -> None:
    """Raises ImportError when a package that must stand beside this one is another project's (`kernels` is a name
    others use too).
    """
    beside = Path(__file__).resolve().parents[1]
    for name in names:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != beside / name:
            where = f"the one at {found}" if found else "none"
            raise ImportError(
                f"mixer-suite needs its own package {name!r} ({beside / name}), but python finds {where}; "
                f"uninstall the other project, take its folder off PYTHONPATH, or use an environment of its own"
            )


_check_neighbours()
