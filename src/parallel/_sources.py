"""What a host is sent at its start: this package and what it needs there, as installed here."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import tarfile
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path

from .errors import ParallelError

NEEDED = ("parallel", "trio", "attr", "attrs", "cloudpickle", "idna", "outcome", "sniffio",
          "sortedcontainers", "tblib")  # fmt: skip
"""What the far side imports. All of it is Python alone, so it runs wherever this version does."""

_LEFT_OUT = {"__pycache__", "_tests", "tests"}


class Archive:
    """Files for another host; `digest` is the SHA-256 of the tar file, in hexadecimal digits."""

    def __init__(self, tar: bytes) -> None:
        self.digest = hashlib.sha256(tar).hexdigest()
        self._tar = tar
        self._data: bytes | None = None
        self._lock = threading.Lock()

    @property
    def data(self) -> bytes:
        """What is sent, compressed when somebody wants it: mostly it is there already.

        The first time takes 0.06 s for what every host needs. May be called in any thread.
        """
        with self._lock:
            if self._data is None:
                self._data, self._tar = zlib.compress(self._tar, 6), b""
            return self._data


_lock = threading.Lock()
_needed: list[Archive] = []


def needed_archive() -> Archive:
    """Of everything that a host needs; made once, in 0.02 s. May be called in any thread."""
    with _lock:
        if not _needed:
            _needed.append(_make_needed_archive())
        return _needed[0]


def _make_needed_archive() -> Archive:
    files: dict[str, Path] = {}
    for name in NEEDED:
        files.update(package_files(name))
    return make_archive({name: path.read_bytes() for name, path in files.items()})


def package_files(name: str) -> dict[str, Path]:
    """The Python files of a package or module that is installed here, by their relative paths."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ParallelError(f"{name} is not installed as files, so it cannot be sent to a host")
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        return {origin.name: origin}
    root = origin.parent
    paths = {path.relative_to(root): path for path in root.rglob("*.py")}
    return {
        f"{name}/{relative.as_posix()}": path
        for relative, path in paths.items()
        if _LEFT_OUT.isdisjoint(relative.parts)
    }


def make_archive(files: Mapping[str, bytes]) -> Archive:
    """Pack files; the same files make the same archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    return Archive(packed.getvalue())
