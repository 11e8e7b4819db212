"""Plug-ins: criteria, networks, data sets, readers, generators, augmentations and trackers of a user.

A plug-in is named in one of three ways, and this module is the one loader for all of them:

* `file.py:object`, a Python file and an object in it;
* `package.module:object`, an object of an installed module;
* a plain name, which an installed package registered as a Python entry point of the kind's group (`GROUPS`).
  The plug-ins that come with this package are registered in the same way (pyproject.toml).

Nothing is imported before `load` is called: the names of entry points are read from the installed metadata.
"""

import functools
import hashlib
import importlib
import importlib.util
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from sal_fast._util.suggest import suggest
from sal_fast.errors import InputError

Kind = Literal["criterion", "network", "data", "reader", "generator", "augmentation", "tracker"]
GROUPS: dict[Kind, str] = {
    "criterion": "sal_fast.criteria",
    "network": "sal_fast.networks",
    "data": "sal_fast.data",
    "reader": "sal_fast.readers",
    "generator": "sal_fast.generators",
    "augmentation": "sal_fast.augmentations",
    "tracker": "sal_fast.trackers",
}
_handed: dict[tuple[Kind, str], Any] = {}  # objects that were handed over in Python, by their names


@functools.cache
def registered(kind: Kind) -> dict[str, EntryPoint]:
    """The entry points of a kind by name. Those of this package come first.

    Raises InputError if two packages register different objects under one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUPS[kind]), key=lambda entry: not _is_ours(entry)):
        kept = found.setdefault(entry.name, entry)
        if kept.value != entry.value:
            raise InputError(
                f"two packages register the {kind} {entry.name!r}: {kept.value} and {entry.value}; "
                f"uninstall one of them"
            )
    return found


def names(kind: Kind) -> tuple[str, ...]:
    """The plain names that `load` knows for a kind."""
    return tuple(registered(kind))


def is_reference(spec: str) -> bool:
    """True if the text names an object in a module or a file (`module:object`), not an entry point."""
    place, _, name = spec.rpartition(":")
    local = ("<locals>", "<lambda>")  # these occur in the names of objects that were handed over
    return bool(place) and all(part.isidentifier() or part in local for part in name.split("."))


def is_known(kind: Kind, spec: str) -> bool:
    """True for a registered name, for `module:object`, and for an object that was handed over."""
    return is_reference(spec) or spec in registered(kind) or (kind, spec) in _handed


def check(kind: Kind, spec: str) -> None:
    """Raise InputError for a name that no package registers. The message suggests the nearest one.

    A `module:object` is accepted here, because only `load` can tell if it exists.
    """
    if not is_reference(spec) and spec not in registered(kind):
        raise InputError(f"unknown {kind} {spec!r}{suggest(spec, names(kind))}, or file.py:object")


def hand_over(kind: Kind, plugin: object, spec: str | None = None) -> str:
    """Make an object known to `load`, and return its name there.

    Without `spec` the name is `module:object`. If two objects get one name, `load` gives the later one.
    """
    spec = spec or described(plugin)
    _handed[kind, spec] = plugin
    return spec


def load(kind: Kind, spec: str) -> Any:
    """The object that `spec` names. It is imported, unless it was handed over.

    Raises:
        InputError: no package registers the name, the file or module cannot be imported (the message repeats
            the error), or it has no such object.
    """
    if (kind, spec) in _handed:
        return _handed[kind, spec]
    check(kind, spec)
    if not is_reference(spec):
        return _imported(kind, spec, registered(kind)[spec].load)
    place, _, name = spec.rpartition(":")
    module = _imported(kind, spec, functools.partial(_module, place))
    if not hasattr(module, name):
        raise InputError(f"{kind} {spec}: {place} has no {name!r}")
    return getattr(module, name)


def source(spec: str, kind: Kind = "generator") -> Path | None:
    """The file that a plug-in is written in; None if there is none. The plug-in is not run."""
    if not is_reference(spec):
        entry = registered(kind).get(spec)
        return None if entry is None else source(entry.value, kind)
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        path = Path(os.path.expanduser(place)).resolve()
    else:
        try:
            found = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            return None
        path = Path(found.origin if found is not None and found.origin is not None else "")
    return path if path.is_file() else None


def digest(spec: str, kind: Kind = "generator") -> str | None:
    """SHA-256 of the plug-in's source file, in hexadecimal; None for the plug-ins of this package.

    A run records it and refuses to go on with another. The package's version stands for its own plug-ins.
    """
    if not is_reference(spec) and (spec not in registered(kind) or _is_ours(registered(kind)[spec])):
        return None
    path = source(spec, kind)
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def described(plugin: object) -> str:
    """The name `module:object` of an object in Python, which a run records."""
    name = getattr(plugin, "__qualname__", type(plugin).__qualname__)
    return f"{getattr(plugin, '__module__', type(plugin).__module__)}:{name}"


def _is_ours(entry: EntryPoint) -> bool:
    return entry.value.startswith("sal_fast.")


def _imported(kind: Kind, spec: str, make: Any) -> Any:
    try:
        return make()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{kind} {spec}: it cannot be imported ({error!r})") from error


def _module(place: str) -> ModuleType:
    """Import a module by its dotted name, or a file as a module of its own."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(os.path.expanduser(place)).resolve()
    if not path.is_file():
        raise InputError(f"file not found: {path}")
    module = ModuleType(f"sal_fast_plugin_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    # We compile the file ourselves: cached bytecode may be of an older file with the same size and second.
    exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    return module
