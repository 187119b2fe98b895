"""The one registry of mixers: built-in, of packages (entry-point group `suite.mixers`), or `path/file.py:Class`."""

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
from backbones.mixers.errors import MixerError, class_missing, did_you_mean

ENTRY_POINT_GROUP = "suite.mixers"
BUILTIN_MODULES = (
    "backbones.mixers.priors.softmax",
    "backbones.mixers.priors.linear",
    "backbones.mixers.attention.fox",
    "backbones.mixers.priors.aft",
    "backbones.mixers.priors.ssm",
    "backbones.mixers.fem.fem",
    "backbones.mixers.fem.host_priors",
    "backbones.mixers.deconstructed.variants",
    "backbones.mixers.deconstructed.split_qk",
    "backbones.mixers.hyper.hypermlp",
    "backbones.mixers.recurrent.mamba2",
    "backbones.mixers.recurrent.mlstm",
    "backbones.mixers.recurrent.delta",
    "backbones.mixers.recurrent.kda",
    "backbones.mixers.recurrent.rwkv7",
    "backbones.mixers.recurrent.gated_linear",
    "backbones.mixers.attention.queries",
    "backbones.mixers.attention.gated",
    "backbones.mixers.attention.canon",
    "backbones.mixers.attention.exclusive",
    "backbones.mixers.attention.sink",
    "backbones.mixers.attention.grouped",
    "backbones.mixers.attention.window",
    "backbones.mixers.attention.differential",
    "backbones.mixers.fla.layers",
)


M = TypeVar("M", bound=type[Mixer])
_registered: dict[str, type[Mixer]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator: registers a mixer under a name.

    Args:
        name: the mixer's name on the command line and on boards.

    Returns:
        The decorator, which gives back the class.

    Raises:
        MixerError: where another class has that name.
    """

    def add(cls: M) -> M:
        if _registered.get(name, cls) is not cls:
            other = _registered[name].__qualname__
            raise MixerError(f"two mixers are called {name!r}: {other} and {cls.__qualname__}")
        _registered[name] = cls
        return cls

    return add


@cache
def _load_builtins() -> None:
    for module in BUILTIN_MODULES:
        importlib.import_module(module)


@cache
def _built_in() -> Mapping[str, type[Mixer]]:
    """The built-in mixers only: a package's module or a user's file may use `register` too."""
    _load_builtins()
    return {name: cls for name, cls in _registered.items() if cls.__module__.startswith("backbones.mixers.")}


@cache
def _entries() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Entry points of installed packages by the mixer's name; several where packages claim the same name."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def names() -> tuple[str, ...]:
    """Every registered name. A package's mixer is listed without loading it: `get` may fail.

    Returns:
        The built-in mixers in the order of registration, then those of installed packages in alphabetical order.
    """
    return tuple(dict.fromkeys([*_built_in(), *sorted(_entries())]))


def built_in(name: str) -> type[Mixer] | None:
    """The suite's own mixer of that name, whatever installed packages claim; None where there is none.

    Args:
        name: a registered name.

    Returns:
        The class, or None. No entry point and no file is loaded.
    """
    return _built_in().get(name)


def origin(name: str) -> str:
    """Where a mixer comes from, for records.

    Args:
        name: a registered name or `path/file.py:Class`.

    Returns:
        "built-in", a distribution with its version, a file's name with the hash of its content, or "unknown".
    """
    if ".py:" in name:
        path = Path(name.rpartition(":")[0])
        return f"{path.name}@{sha256(path.read_bytes()).hexdigest()[:12]}"
    own = _built_in().get(name)
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
    """The class of a mixer.

    Args:
        name: a registered name or `path/file.py:Class`.

    Returns:
        The class, checked to be complete.

    Raises:
        MixerError: where the name is unknown (with the nearest one), claimed more than once, or does not load.
    """
    if ".py:" in name:
        return _from_file(*name.rsplit(":", 1))
    own, entries = _built_in().get(name), _entries().get(name, ())
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
    if name.endswith(".py"):
        raise MixerError(class_missing("mixer", name))
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
        raise MixerError(f"mixer file {file!r} does not exist (expected: path/to/file.py:Class)")
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
    """The candidate, if it is a subclass of Mixer that defines everything a mixer has to."""
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
