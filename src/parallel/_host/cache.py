"""The cache of a host: archives that were sent there once, unpacked, by the hash of their content.

It lies in `$XDG_CACHE_HOME/parallel`, and belongs to its user alone. Where nothing can be written
there a directory takes its place that goes with the host. The loader holds a copy of this file's
text: nothing but the standard library is there when it runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterable

MAX_AGE = 30 * 24 * 3600.0
"""Seconds that an entry lasts which nobody uses."""

INDEX = ".index"
"""The sizes of an entry's files: what a cleaner has thinned out is no entry any more."""

ARCHIVE = ".archive"
"""The archive as it came, to pass it on."""


PLACE = "PARALLEL_CACHE"
"""The environment variable that tells a host's processes where its cache is."""


class Cache:
    """One directory, with a directory for each archive."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @property
    def is_writable(self) -> bool:
        """Whether anything can be stored, but for a lack of room."""
        return os.access(self.directory, os.W_OK)

    def path_of(self, digest: str) -> str:
        """Where that archive is unpacked, if it is."""
        return os.path.join(self.directory, digest)

    def use(self, digest: str) -> str | None:
        """The directory of an archive, which now lasts again; None if it is not here, or not whole.

        Takes 1 ms for 250 files.
        """
        path = self.path_of(digest)
        try:
            with open(os.path.join(path, INDEX), encoding="utf-8") as file:
                index = json.load(file)
            for name, size in index.items():
                if os.stat(os.path.join(path, name)).st_size != size:
                    return None
        except (OSError, ValueError, AttributeError):
            return None
        try:
            os.utime(path)
        except OSError:
            pass  # a cache that is read-only now still serves
        return path

    def archive(self, digest: str) -> bytes | None:
        """The archive as it came."""
        if self.use(digest) is None:
            return None
        with open(os.path.join(self.path_of(digest), ARCHIVE), "rb") as file:
            return file.read()

    def store(self, digest: str, archive: bytes) -> str:
        """Unpack an archive; where it is now. Another process may do the same at the same time.

        Raises ValueError for an archive that is not what its name says, OSError.
        """
        tar = _decompress(archive)
        if tar is None or hashlib.sha256(tar).hexdigest() != digest:
            raise ValueError(f"archive {digest[:12]} arrived damaged")
        new = tempfile.mkdtemp(prefix="new-", dir=self.directory)
        try:
            index = _unpack(tar, new)
            for name, data in ((ARCHIVE, archive), (INDEX, json.dumps(index).encode())):
                with open(os.path.join(new, name), "wb") as file:
                    file.write(data)
            self._put(new, digest)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return self.path_of(digest)

    def _put(self, new: str, digest: str) -> None:
        """Give it its name. Who comes second finds it taken, and is content if it is whole."""
        for _ in range(10):
            try:
                os.rename(new, self.path_of(digest))
                return
            except OSError:
                if self.use(digest) is not None:
                    return
            old = tempfile.mkdtemp(prefix="old-", dir=self.directory)
            try:
                os.rename(self.path_of(digest), os.path.join(old, digest))
            except OSError:
                pass  # somebody else was faster
            shutil.rmtree(old, ignore_errors=True)
        os.rename(new, self.path_of(digest))

    def prune(self, keep: Iterable[str]) -> None:
        """Remove what nobody has used for long."""
        kept = set(keep)
        oldest = time.time() - MAX_AGE
        try:
            for entry in os.scandir(self.directory):
                if entry.name not in kept and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    shutil.rmtree(entry.path, ignore_errors=True)
        except OSError:
            pass  # it is somebody else's turn


def _decompress(archive: bytes) -> bytes | None:
    """None where it is not that, whole, and nothing else."""
    stream = zlib.decompressobj()
    try:
        tar = stream.decompress(archive)
    except zlib.error:
        return None
    return tar if stream.eof and not stream.unused_data else None


def _unpack(tar: bytes, directory: str) -> dict[str, int]:
    """Unpack files; their sizes."""
    index = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        for member in members:
            file = members.extractfile(member)
            path = os.path.normpath(os.path.join(directory, member.name))
            if file is None or not path.startswith(directory + os.sep):
                raise ValueError(f"an archive holds {member.name!r}")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            data = file.read()
            with open(path, "wb") as unpacked:
                unpacked.write(data)
            index[member.name] = len(data)
    return index


def open_cache() -> Cache:
    """The user's cache on this host; raises OSError where it cannot be trusted or not be used."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        raise NotADirectoryError(f"the user has no home directory: {base}")
    path = os.path.join(base, "parallel")
    os.makedirs(base, mode=0o700, exist_ok=True)
    try:
        os.mkdir(path, mode=0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a directory of this user's own")
    if found.st_mode & 0o022:
        raise PermissionError(f"others may write into {path}: remove it")
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)
    return Cache(path)
