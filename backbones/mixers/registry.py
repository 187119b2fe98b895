"""The one registry of mixers: built-ins, packages with the entry-point group `suite.mixers`, and `path/file.py:Class`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from backbones.mixers.base import Mixer

ENTRY_POINT_GROUP = "suite.mixers"
BUILTIN_MODULES = (
    "backbones.mixers.priors",
    "backbones.mixers.priors_linear",
    "backbones.mixers.priors_channel",
    "backbones.mixers.priors_ssm",
    "backbones.mixers.fem",
    "backbones.mixers.fem_hosts",
    "backbones.mixers.deconstructed",
    "backbones.mixers.deconstructed_qk",
    "backbones.mixers.hypermlp",
    "backbones.mixers.queries",
)


class MixerError(Exception):
    """A mixer that cannot be found, loaded or configured. The message is one line for the user."""

    exit_code = 2


M = TypeVar("M", bound=type[Mixer])
_registered: dict[str, type[Mixer]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator: makes a mixer known under `name`. A name is given once."""

    def add(cls: M) -> M:
        if _registered.get(name, cls) is not cls:
            raise MixerError(f"two mixers are called {name!r}: {_registered[name].__qualname__} and {cls.__qualname__}")
        _registered[name] = cls
        return cls

    return add


def _load_builtins() -> None:
    for module in BUILTIN_MODULES:
        importlib.import_module(module)


def names() -> tuple[str, ...]:
    """Every mixer known by name, built-ins first, then installed packages'."""
    _load_builtins()
    external = sorted({e.name for e in entry_points(group=ENTRY_POINT_GROUP)} - set(_registered))
    return (*_registered, *external)


def origin(name: str) -> str:
    """Where a mixer comes from: "built-in", a distribution's name, or a file with the hash of its content."""
    if name in _registered:
        return "built-in"
    if ".py:" in name:
        path = Path(name.rpartition(":")[0])
        return f"{path.name}@{sha256(path.read_bytes()).hexdigest()[:12]}"
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "package"
    return "unknown"


def get(name: str) -> type[Mixer]:
    """The mixer class of a name or of `path/file.py:Class`. Raises MixerError with the nearest valid name."""
    _load_builtins()
    if name in _registered:
        return _registered[name]
    if ".py:" in name:
        return _from_file(*name.rsplit(":", 1))
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return _checked(_load_entry(entry), f"entry point {entry.value}")
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise MixerError(f"unknown mixer {name!r}{hint} (suite list mixers; or path/to/file.py:Class)")


def _load_entry(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:
        raise MixerError(f"mixer {entry.name!r} (entry point {entry.value}) cannot be loaded: {type(error).__name__}: {error}") from error


def _from_file(file: str, class_name: str) -> type[Mixer]:
    path = Path(file)
    if not path.is_file():
        raise MixerError(f"mixer file {file!r} does not exist (form: path/to/file.py:Class)")
    module_name = f"_mixer_file_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise MixerError(f"mixer file {file!r} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(sys.modules[module_name], class_name, None)
    if found is None:
        raise MixerError(f"mixer file {file!r} has no class {class_name!r}")
    return _checked(found, f"{file}:{class_name}")


def _checked(candidate: object, where: str) -> type[Mixer]:
    if not (isinstance(candidate, type) and issubclass(candidate, Mixer)):
        raise MixerError(f"{where} is not a subclass of backbones.mixers.base.Mixer")
    return candidate
