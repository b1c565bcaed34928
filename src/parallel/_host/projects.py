"""Projects on a host: found in its cache, or stored there when they arrive."""

from __future__ import annotations

import os

from .._shipping import Project, is_here, receive
from .._wire.news import ROOT_HOST
from ..errors import ParallelError
from .cache import PLACE, Cache, open_cache


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
