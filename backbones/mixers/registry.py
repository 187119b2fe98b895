"""The one registry of mixers: built-ins, packages with the entry-point group `suite.mixers`, and
`path/file.py:Class`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from backbones.mixers.base import Mixer, MixerConfig
from backbones.mixers.errors import MixerError, did_you_mean

ENTRY_POINT_GROUP = "suite.mixers"
BUILTIN_MODULES = (
    "backbones.mixers.priors.softmax",
    "backbones.mixers.priors.linear",
    "backbones.mixers.priors.aft",
    "backbones.mixers.priors.ssm",
    "backbones.mixers.fem.fem",
    "backbones.mixers.fem.host_priors",
    "backbones.mixers.deconstructed.variants",
    "backbones.mixers.deconstructed.split_qk",
    "backbones.mixers.hyper.hypermlp",
    "backbones.mixers.attention.queries",
    "backbones.mixers.fla.layers",
)


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


def _own() -> dict[str, type[Mixer]]:
    """What the suite itself registers; a package's module or a user's file may use `register` too."""
    _load_builtins()
    return {name: cls for name, cls in _registered.items() if cls.__module__.startswith("backbones.mixers.")}


@cache
def _entries() -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of installed packages by the mixer's name: several where packages contest one."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def names() -> tuple[str, ...]:
    """Every mixer known by name, built-ins first, then installed packages'. Not all of them need load: `get` tells."""
    return tuple(dict.fromkeys([*_own(), *sorted(_entries())]))


def origin(name: str) -> str:
    """Where a mixer comes from: "built-in", a distribution with its version, or a file with the hash of its content."""
    if ".py:" in name:
        path = Path(name.rpartition(":")[0])
        return f"{path.name}@{sha256(path.read_bytes()).hexdigest()[:12]}"
    own = _own().get(name)
    if own is not None:
        return _installed(own.package) if own.package else "built-in"
    return " and ".join(_distribution(entry) for entry in _entries().get(name, ())) or "unknown"


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else f"entry point {entry.value}"


def get(name: str) -> type[Mixer]:
    """The mixer class of a name or of `path/file.py:Class`. Raises MixerError with the nearest valid name."""
    if ".py:" in name:
        return _from_file(*name.rsplit(":", 1))
    own, entries = _own().get(name), _entries().get(name, ())
    claims = [*(["mixer-suite itself"] if own else []), *(_distribution(entry) for entry in entries)]
    if len(claims) > 1:
        raise MixerError(
            f"mixer name {name!r} is claimed by {' and by '.join(claims)}: uninstall a package, or rename its "
            "entry point"
        )
    if entries:
        return _checked(_load_entry(entries[0]), f"mixer {name!r} of {_distribution(entries[0])} ({entries[0].value})")
    if own or name in _registered:
        return own or _registered[name]
    raise MixerError(
        f"unknown mixer {name!r}{did_you_mean(name, names(), '.')} (suite list mixers; or path/to/file.py:Class)"
    )


def _load_entry(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:
        where = f"mixer {entry.name!r} of {_distribution(entry)} ({entry.value})"
        raise MixerError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error


def _from_file(file: str, class_name: str) -> type[Mixer]:
    path = Path(file)
    if not path.is_file():
        raise MixerError(f"mixer file {file!r} does not exist (form: path/to/file.py:Class)")
    module = _load_file(path, file)
    found = getattr(module, class_name, None)
    if found is None:
        there = tuple(
            n
            for n, c in vars(module).items()
            if inspect.isclass(c) and issubclass(c, Mixer) and c.__module__ == module.__name__
        )
        hint = did_you_mean(class_name, there) or (
            f" (mixers there: {', '.join(there)})" if there else " and no other mixer"
        )
        raise MixerError(f"mixer file {file!r} has no class {class_name!r}{hint}")
    return _checked(found, f"{file}:{class_name}")


def _load_file(path: Path, file: str) -> ModuleType:
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
    return sys.modules[module_name]


def _checked(candidate: object, where: str) -> type[Mixer]:
    """A class that can be asked for its size and cost: whole, and with a config."""
    if not (isinstance(candidate, type) and issubclass(candidate, Mixer)):
        raise MixerError(f"{where} is not a subclass of backbones.mixers.base.Mixer")
    missing = sorted(getattr(candidate, "__abstractmethods__", ()))
    config = getattr(candidate, "Config", None)
    if not (isinstance(config, type) and issubclass(config, MixerConfig)):
        missing.append("Config (a subclass of MixerConfig)")
    if missing:
        raise MixerError(
            f"{where} lacks {', '.join(missing)}: every mixer defines them (backbones/mixers/base.py, examples/)"
        )
    return candidate
