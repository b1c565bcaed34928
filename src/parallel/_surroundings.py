"""What a fresh process sees of its caller: environment, directory, umask, import path.

On another host than the root's also the caller's own modules, its *project*: `_shipping`.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import time
from collections.abc import Mapping

from ._wire.record import Record


class Project(Record):
    """A project as the settings of a process name it: its archive's digest, what one can import."""

    digest: str
    names: tuple[str, ...]


_received: tuple[Project, str] | None = None
"""In a worker: what it was sent, or one above it on its host was, and where that lies."""


class Surroundings(Record):
    """A process's own, at some moment."""

    environ: dict[str, str]
    cwd: str | None
    """None: it has been deleted, so the worker stays in that of its fork server."""
    umask: int
    path: list[str]
    received: tuple[Project, str] | None
    """The project that was sent here, and where it lies: to be passed on to a third host."""


def look_around(env: Mapping[str, str] | None = None, cwd: str | None = None) -> Surroundings:
    """This process's; `env` is put over its environment, `cwd` is relative to its directory."""
    environ = {**os.environ, **env} if env else dict(os.environ)
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = None
    if cwd is not None:
        here = os.path.join(here or "/", os.fspath(cwd))
    return Surroundings(environ, here, _umask(), sys.path, received())


def received() -> tuple[Project, str] | None:
    """For another worker of this host, which has the same import path."""
    return _received


def inherit(what: tuple[Project, str] | None) -> None:
    """In a worker: pass on to other hosts what its caller on this host has `received`."""
    global _received
    _received = what


class Abroad(Record):
    """For a process on another host than the caller's: what it finds beyond that host's own."""

    env: dict[str, str]
    cwd: str | None
    project: Project | None


def _umask() -> int:
    """Read it without setting it: another thread may be creating a file."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except FileNotFoundError:
        pass
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def encode_surroundings(around: Surroundings) -> bytes:
    """For a new worker."""
    return pickle.dumps(tuple(around), protocol=5)


def encode_abroad(abroad: Abroad) -> bytes:
    """For a new worker on another host."""
    return pickle.dumps((None, abroad.cwd, abroad.env, abroad.project), protocol=5)


_environ: dict[str, str] | None = None
"""In a new worker: what its `os.environ` holds, which as a rule is what its caller's does."""


def remember_environ() -> None:
    """In the fork server: to look at each variable costs a worker 0.1 ms and 25 pages of memory."""
    global _environ
    _environ = dict(os.environ)


def settle_in(data: bytes) -> Project | None:
    """In a new worker: make the caller's surroundings its own; raises OSError for a bad `cwd`.

    Returns the project that it has to find before its task, on another host than the caller's.
    """
    environ, cwd, *more = pickle.loads(data)
    project = None
    if environ is None:
        env, project = more
        os.environ.update(env)
        time.tzset()
    else:
        umask, path, sent = more
        inherit(sent)
        if environ != _environ:
            _replace_environ(environ)
            time.tzset()
        os.umask(umask)
        if path != sys.path:
            sys.path[:] = path
            sys.path_importer_cache.clear()
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:  # preloaded: all workers would have the same seed
        numpy_random.seed()
    if cwd is not None:
        os.chdir(cwd)
    return project


def _replace_environ(environ: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    for name, value in environ.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
