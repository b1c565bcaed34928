"""Projects on a host: found in its cache, or stored there when they arrive; or missing."""

from __future__ import annotations

import os
import sys

from .._shipping import is_here, receive
from .._surroundings import Project
from .._wire.failure import text_of
from .._wire.news import ROOT_HOST
from ..errors import ParallelError, RemoteError
from .cache import PLACE, Cache, open_cache

_MISSING = "has no module"


def use(project: Project, host: str) -> bool:
    """Make a caller's project importable; False where it has to be sent first."""
    if host == ROOT_HOST and is_here(project):
        return True  # where it came from
    path = _cache().use(project.digest)
    if path is not None:
        receive(project, path)
    return path is not None


def store(project: Project, archive: bytes) -> None:
    """Put a project that has arrived into the cache, and make it importable."""
    try:
        receive(project, _cache().store(project.digest, archive))
    except (OSError, ValueError) as exc:
        raise ParallelError(f"the caller's modules cannot be stored here: {exc}") from exc


def _cache() -> Cache:
    """The host's, as its loader has found it."""
    place = os.environ.get(PLACE)
    try:
        return open_cache() if place is None else Cache(place)
    except OSError as exc:
        raise ParallelError(f"there is no cache for the modules of the caller: {exc}") from exc


def explain_missing(error: BaseException, host: str) -> None:
    """Where an error is that a module is missing here, tell a caller on another host what to do."""
    waiting = [error]
    while waiting:
        exc = waiting.pop()
        if isinstance(exc, BaseExceptionGroup):
            waiting += exc.exceptions
        missing = exc.__cause__ if isinstance(exc, RemoteError) else exc
        if isinstance(missing, ModuleNotFoundError) and isinstance(missing.name, str):
            _explain_once(exc, missing.name, host)


def _explain_once(exc: BaseException, module: str, host: str) -> None:
    """Unless it comes from a third host, which has explained it."""
    why = (
        f"host {host!r} {_MISSING} {module!r}: install it for {sys.executable} there, or have it "
        "sent: init(ship=True) sends what has been imported before the call, "
        f"init(ship=[{module.partition('.')[0]!r}, ...]) what it names"
    )
    if isinstance(exc, RemoteError):
        if _MISSING not in exc.text:
            exc.text += f"; {why}"
        return
    notes = getattr(exc, "__notes__", [])
    if isinstance(notes, list) and not any(_MISSING in text_of(note) for note in notes):
        exc.add_note(why)
