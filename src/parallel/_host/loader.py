"""The loader: what the bootstrap runs first in a host's Python.

It is sent as text, after that of `cache`, and has nothing but the standard library. On its stdin
and stdout, which become the link:

1.  It says what there is: version, processors, which archives are missing.
2.  It is sent what is missing, and imports the agent.
3.  It is told what that has to know, which has mostly arrived by then.
4.  It says that it is done, or what went wrong, and becomes the agent.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn

TYPE_CHECKING = False
if TYPE_CHECKING:  # its text stands above this one's
    from .cache import PLACE, Cache, open_cache

FIRST_FREE = 3
"""Descriptors below are for everybody."""


class NoRoom(Exception):
    """Archives cannot be stored anywhere."""


def load(boot: Mapping[str, Any]) -> NoReturn:
    """Be the loader; `boot` is from `_bootstrap`: the mark, the archives, what to become."""
    link = _Link("".join(boot["mark"]).encode())
    try:
        caches, trouble = [open_cache()], ""
    except OSError as exc:
        caches, trouble = [], str(exc)
    paths = {digest: _find(caches, digest) for digest in boot["archives"]}
    missing = [digest for digest, path in paths.items() if path is None]
    link.say({"python": platform.python_version(), "cpus": _usable_cpus(), "missing": missing})
    try:
        arrived = {digest: link.read() for digest in missing}
        paths.update(_store([cache for cache in caches if cache.is_writable], trouble, arrived))
        for cache in caches:
            cache.prune(boot["archives"])
        sys.path[:] = [*filter(None, paths.values()), *filter(None, sys.path)]
        main = _load_compiled(*boot["main"].split(":"))
        config = json.loads(link.read())
    except NoRoom as exc:
        link.say({"failed": str(exc)})
        sys.exit(1)
    except BaseException:  # noqa: ASYNC103  # whatever it was, the other side tells it
        link.say({"failed": traceback.format_exc()})
        sys.exit(1)
    main(*link.detach({}), config)
    sys.exit(0)


def _load_compiled(module: str, function: str) -> Any:
    """Leave what was compiled in the cache, which is ours, even where Python is to leave nothing.

    Containers often say so, and compiling would be two fifths of every start. Of what is imported
    nothing is garbage; to look for some would take 0.01 s.
    """
    told, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()
    try:
        return getattr(importlib.import_module(module), function)
    finally:
        gc.enable()
        sys.dont_write_bytecode = told


def _find(caches: Sequence[Cache], digest: str) -> str | None:
    return next(filter(None, (cache.use(digest) for cache in caches)), None)


def _store(caches: Sequence[Cache], trouble: str, arrived: Mapping[str, bytes]) -> dict[str, str]:
    """Put archives into a cache, or where else there is room; where they are.

    That is then the cache of all processes of this host.
    """
    troubles = [trouble] if trouble else []
    for cache in chain(caches, _temporary(troubles)):
        try:
            found = {digest: cache.store(digest, data) for digest, data in arrived.items()}
        except OSError as exc:
            troubles.append(str(exc))
            if cache not in caches:
                shutil.rmtree(cache.directory, ignore_errors=True)
            continue
        if cache not in caches:
            _remove_at_the_end(cache.directory)
        os.environ[PLACE] = cache.directory
        return found
    size = sum(map(len, arrived.values()))
    raise NoRoom(
        f"there is no room for {size >> 10} KiB of archives; make some, or set XDG_CACHE_HOME "
        f"with the host's setting env: {'; '.join(troubles)}"
    )


def _temporary(troubles: list[str]) -> Iterator[Cache]:
    """Directories that last as long as the host."""
    for place in (None, "/dev/shm"):
        try:
            yield Cache(tempfile.mkdtemp(prefix="parallel-", dir=place))
        except OSError as exc:
            troubles.append(str(exc))


def _remove_at_the_end(directory: str) -> None:
    """Go on in a child of this process, which waits for its end to remove a directory."""
    child = os.fork()
    if child == 0:
        return
    for descriptor in (0, 1, 2):  # the link's end is the child's alone
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    shutil.rmtree(directory, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Link:
    """Descriptors 0 and 1, without a buffer: what follows is the agent's."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark

    def say(self, what: Mapping[str, Any]) -> None:
        """Send a line."""
        self._write(1, self.mark + json.dumps(what).encode() + b"\n")

    def _write(self, descriptor: int, data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    def read(self) -> bytes:
        """Receive something that has its length in front."""
        return self._read_exactly(int.from_bytes(self._read_exactly(8), "big"))

    def _read_exactly(self, size: int) -> bytes:
        parts = []
        while size:
            data = os.read(0, min(size, 1 << 20))
            if not data:
                os._exit(1)  # who started this has gone
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def detach(self, last: Mapping[str, Any]) -> tuple[int, int]:
        """Say the last, and take the link away from where anybody might write to it."""
        reading = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
        writing = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        if os.path.samestat(os.fstat(1), os.fstat(2)):  # a launcher that makes one of both
            os.dup2(null, 2)
        os.close(null)
        os.dup2(2, 1)
        self._write(writing, self.mark + json.dumps(last).encode() + b"\n")
        return reading, writing
