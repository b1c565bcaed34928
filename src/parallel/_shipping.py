"""What other hosts get of the caller's own modules: its project, as an archive.

The project is what has been imported by the time of the call and comes neither from the standard
library nor from an installed distribution: modules and packages beside the program, and those that
are installed to be edited. A worker on another host passes on what it was sent itself.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeAlias

from ._sources import NEEDED, make_archive
from ._surroundings import Project, inherit, received
from .errors import ParallelError

Ship: TypeAlias = "bool | tuple[str, ...]"
"""What `init(ship=...)` said: True for the project, False for nothing, or paths and names."""

MAX_SIZE = 64 << 20
"""Bytes of a project's files; more is no program but data, or a mistake."""

ARCHIVE = ".archive"
"""Where a host's cache keeps the archive itself, beside its files."""

_STDLIB = os.path.dirname(os.path.abspath(os.__file__))
_INSTALLED = {"site-packages", "dist-packages"}
"""Directories that installers of all kinds put distributions in."""

_SKIPPED = {"__pycache__", "node_modules"}
_OURS = {*NEEDED, "__main__", "__mp_main__"}

_TAKEN = (
    "it takes names of modules and packages to import, and paths (with a / in them, or .py behind)"
)


class Parcel(NamedTuple):
    """A project with the way to its archive."""

    project: Project
    read: Callable[[], bytes]


class _Files(NamedTuple):
    """Files of a project by their names in its archive, with what tells a change."""

    paths: dict[str, Path]
    state: tuple[tuple[str, int, int], ...]


_last: tuple[tuple[tuple[str, int, int], ...], Parcel] | None = None
_classified: dict[str, tuple[int, list[Path]]] = {}
"""Top-level modules by name: which object that was, and what of it is the project's."""


def receive(project: Project, directory: str) -> None:
    """In a worker: use what it was sent, before anything else."""
    inherit((project, directory))
    sys.path.insert(0, directory)


def is_here(project: Project) -> bool:
    """Whether all of it can be imported without being sent."""
    return all(importlib.util.find_spec(name) is not None for name in project.names)


def pack_project(ship: Ship) -> Parcel | None:
    """What a process on another host is to find; None for nothing.

    Costs 0.2 ms and a look at each file when nothing has changed. Raises `ParallelError` for more
    than 64 MiB.
    """
    sent_here = received()
    if ship is True or (ship and sent_here is not None):  # what was named was so at the root
        roots = _imported()
    else:
        roots = dict(map(_find, ship)) if ship else {}
    if sent_here is not None:
        project, directory = sent_here[0], Path(sent_here[1])
        roots = _beyond(directory, roots)
        if not roots:
            return Parcel(project, (directory / ARCHIVE).read_bytes)
        sent = (entry for entry in directory.iterdir() if not entry.name.startswith("."))
        roots = {**{_module_name(entry): [entry] for entry in sent}, **roots}
    return _pack(roots) if roots else None


def _pack(roots: dict[str, list[Path]]) -> Parcel:
    global _last
    files = _collect(roots)
    if _last is None or _last[0] != files.state:
        archive = make_archive({name: path.read_bytes() for name, path in files.paths.items()})
        project = Project(archive.digest, tuple(sorted(roots)))
        _last = files.state, Parcel(project, lambda: archive.data)
    return _last[1]


# What belongs to it


def check_ship(ship: bool | Sequence[str]) -> Ship:
    """What `init` was told, so that it means the same in every process of this host.

    Raises `ParallelError` for an entry of a list that is not there, and for two of one name there.
    Imports nothing.
    """
    if isinstance(ship, bool):
        return ship
    if isinstance(ship, str):
        raise TypeError(f"ship takes a list of names and paths: ship=[{ship!r}]")
    found: dict[str, tuple[str, list[Path]]] = {}
    for item in ship:
        name, places = _check(item)
        first, where = found.setdefault(name, (item, places))
        if where != places:
            raise ParallelError(
                f"init(ship=...) names {first!r} and {item!r}, which would both be the module "
                f"{name!r} on another host: rename one, or put them into a package and name that"
            )
    return tuple(str(_absolute(item)) if _is_path(item) else item for item in ship)


def _check(item: str) -> tuple[str, list[Path]]:
    if not isinstance(item, str):
        raise TypeError(f"ship takes names and paths as strings, which {item!r} is not")
    return _find(item)


def _imported() -> dict[str, list[Path]]:
    """The project as it has been imported so far: names, and where their files are."""
    found = {}
    for name, module in list(sys.modules.items()):
        if "." in name:
            continue
        known = _classified.get(name)
        if known is None or known[0] != id(module):
            known = _classified[name] = (id(module), _classify(name, module))
        if known[1]:
            found[name] = known[1]
    return found


def _classify(name: str, module: ModuleType) -> list[Path]:
    if name in sys.stdlib_module_names or name in _OURS:
        return []
    file = getattr(module, "__file__", None)
    path = getattr(module, "__path__", None)
    if path is not None:
        places = [Path(os.path.abspath(entry)) for entry in path]
    elif isinstance(file, str) and os.path.basename(file).partition(".")[0] == name:
        places = [Path(os.path.abspath(file))]
    else:
        places = []  # made by the program itself, or loaded from where no import would find it
    return [place for place in places if place.exists() and not _is_installed(place)]


def _is_installed(place: Path) -> bool:
    return place.is_relative_to(_STDLIB) or not _INSTALLED.isdisjoint(place.parts)


def _find(item: str) -> tuple[str, list[Path]]:
    """What a path or a name of a list stands for: what one can import then, and its files."""
    if _is_path(item):
        place = _absolute(item)
        if not place.exists():
            raise ParallelError(f"init(ship=...) names {item!r}, which does not exist; {_TAKEN}")
        return _module_name(place), [place]
    try:
        spec = importlib.util.find_spec(item.partition(".")[0])
    except ValueError:  # no name at all, or a module that the program has made itself
        spec = None
    if spec is None or not (spec.submodule_search_locations or spec.has_location):
        raise ParallelError(f"init(ship=...) names {item!r}, which no file defines; {_TAKEN}")
    places = spec.submodule_search_locations or [spec.origin or ""]
    return spec.name, [Path(os.path.abspath(place)) for place in places]


def _is_path(item: str) -> bool:
    return os.sep in item or item.endswith(".py")


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _module_name(place: Path) -> str:
    return place.name.partition(".")[0]


def _beyond(directory: Path, roots: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Those whose files do not lie in `directory`."""
    return {
        name: places
        for name, places in roots.items()
        if not all(place.is_relative_to(directory) for place in places)
    }


# Its files


def _collect(roots: dict[str, list[Path]]) -> _Files:
    """The files of all roots; raises `ParallelError` when they are too large."""
    paths: dict[str, Path] = {}
    state = []
    total = 0
    for name, places in sorted(roots.items()):
        for place in places:
            size = 0
            for relative, entry in _files_below(place):
                found = entry.stat()
                inner = f"{name}/{relative}" if relative else place.name
                paths[inner] = entry
                state.append((inner, found.st_mtime_ns, found.st_size))
                size += found.st_size
                if total + size > MAX_SIZE:
                    raise _too_large(place, total + size)
            total += size
    return _Files(paths, tuple(state))


def _too_large(place: Path, size: int) -> ParallelError:
    return ParallelError(
        f"the files for other hosts are over {MAX_SIZE >> 20} MiB ({size >> 20} MiB with some of "
        f"{place}): say with init(ship=[...]) which modules and packages they need, or ship=False"
    )


def _files_below(place: Path) -> Iterator[tuple[str, Path]]:
    """The files of a package with their paths inside of it; a module alone, with none."""
    if place.is_file():
        yield "", place
        return
    for directory, subdirectories, names in os.walk(place):
        subdirectories[:] = sorted(
            name for name in subdirectories if not name.startswith(".") and name not in _SKIPPED
        )
        for name in sorted(names):
            path = Path(directory, name)
            if not name.startswith(".") and not name.endswith(".pyc") and path.is_file():
                yield path.relative_to(place).as_posix(), path
