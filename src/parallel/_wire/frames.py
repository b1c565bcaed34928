"""Frames: how messages lie in a stream of bytes.

A frame is a header (what it is, how many descriptors, buffers and bytes it has), the sizes of its
buffers, its body, its buffers. A buffer is a large piece of memory that pickle left out of the
body; it is read straight into the memory where it will be used. Descriptors travel beside the
bytes, always before or together with the frame that counts them.
"""

from __future__ import annotations

import enum
import mmap
import struct
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from ..errors import MessageTooLarge, ProtocolError
from .record import Record

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

MAGIC = 0x9A71
HEADER = struct.Struct("<HBxHHQ")
HEADER_SIZE = HEADER.size
UNLIMITED = 1 << 47
MAX_BUFFERS = 0xFFFF
MAX_DESCRIPTORS = 0xFFFF

READ_SIZE = 1 << 16
"""How much is read at once where the reader has no place of its own for the bytes."""

LARGE = 1 << 20
"""From here on memory comes as pages of its own: zeroed when touched, given back at once."""


class Kind(enum.IntEnum):
    """What a frame says."""

    HELLO = 1  # who speaks here: host, pid, ...
    MESSAGE = 2  # a pickled value
    END = 3  # no message will follow
    RESET = 4  # no message will follow, and why
    CLONE = 5  # a new connection to the same hub: its descriptor
    DESCRIPTORS = 6  # descriptors for the next message, where one message has many
    SETTINGS = 7  # to a new worker: environment, directory, ...
    READY = 8  # from a worker: function and arguments have arrived
    RESULT = 9  # from a worker: its function's value
    RAISED = 10  # from a worker: its function's exception
    EXIT = 11  # from a worker: its function ended the process, and how
    CLOSE = 12  # this end is gone, as it wished; says END too
    RELAYED = 13  # from an agent: the other end of this connection is on another host
    WANTED = 14  # from a worker: the project that its settings name is not here
    ARCHIVE = 15  # to a worker: that project's archive


_MESSAGE = int(Kind.MESSAGE)
KINDS = {int(kind): kind for kind in Kind}
LIMITED = {Kind.MESSAGE, Kind.RESULT}
"""Whose size is the user's to limit; a traceback may be longer."""


class Frame(Record):
    """One frame, complete."""

    kind: Kind
    body: Buffer
    buffers: Sequence[Buffer]
    descriptors: list[int]


def encode(kind: Kind, body: bytes = b"", sizes: Sequence[int] = (), descriptors: int = 0) -> bytes:
    """The bytes of a frame up to its buffers, which follow as they are and have these `sizes`."""
    if not sizes:
        return HEADER.pack(MAGIC, kind, descriptors, 0, len(body)) + body
    return encode_head(kind, len(body), sizes, descriptors) + body


def encode_head(kind: Kind, size: int, sizes: Sequence[int] = (), descriptors: int = 0) -> bytes:
    """The bytes of a frame up to its body of `size` bytes, which is not copied if it is large."""
    header = HEADER.pack(MAGIC, kind, descriptors, len(sizes), size)
    return header + struct.pack(f"<{len(sizes)}Q", *sizes)


RELAYED = encode(Kind.RELAYED)
"""Tells who is at a socket that its other end is an agent's: what comes is not over when the
process at the far end is gone, but when this connection ends."""


class FrameReader:
    """Cuts a stream of bytes into frames; the bytes may come cut anywhere.

    Small frames are sliced out of what `feed` got. While a large body or buffer is under way,
    `target` is the memory that wants the next bytes: read into it and say `filled(n)`.
    """

    def __init__(self, max_size: int = UNLIMITED) -> None:
        self.max_size = max_size
        self.descriptors: deque[int] = deque()
        self.target: memoryview | None = None
        self._data = b""
        self._position = 0
        self._partial: _Partial | None = None

    @property
    def buffered(self) -> int:
        """Bytes that were fed and belong to no finished frame yet."""
        held = len(self._data) - self._position
        return held + (self._partial.size if self._partial is not None else 0)

    def feed(self, data: bytes) -> None:
        """Take bytes that were read while `target` was None."""
        if self._position < len(self._data):
            self._data = self._data[self._position :] + data
        else:
            self._data = data
        self._position = 0

    def filled(self, count: int) -> None:
        """Take note that `count` bytes were written to the front of `target`."""
        assert self.target is not None
        self.target = self.target[count:] if count < len(self.target) else None

    def finish(self) -> None:
        """No more bytes will come: what there is of a frame is none, though its memory is there."""
        self.target = None
        self._partial = None

    def next(self) -> Frame | None:
        """The next frame, or None while it is not complete.

        Raises `ProtocolError` for bytes that are no frame, `MessageTooLarge` over `max_size`.
        """
        if self._partial is not None:
            return self._go_on(self._partial)
        data, start = self._data, self._position
        available = len(data) - start
        if available < HEADER_SIZE:
            return None  # as often as not: it all has been taken
        magic, number, descriptors, buffers, size = HEADER.unpack_from(data, start)
        kind = KINDS.get(number)
        if magic != MAGIC or kind is None:
            raise ProtocolError(f"a frame begins with {data[start : start + HEADER_SIZE].hex()}")
        if buffers or size > available - HEADER_SIZE or size > self.max_size:
            return self._begin(kind, descriptors, buffers, size)
        begin = start + HEADER_SIZE
        self._position = begin + size
        body = data[begin : self._position]
        return Frame(kind, body, (), self._take(descriptors) if descriptors else [])

    def next_small(self) -> bytes | None:
        """The body of the next frame if that is a message without anything beside it.

        Nearly all are, and this costs a third of `next`. None, and nothing was taken: see `next`.
        """
        data, start = self._data, self._position
        if len(data) - start < HEADER_SIZE or self._partial is not None:
            return None
        magic, kind, descriptors, buffers, size = HEADER.unpack_from(data, start)
        begin = start + HEADER_SIZE
        end = begin + size
        beside = descriptors or buffers or kind != _MESSAGE or magic != MAGIC
        if beside or end > len(data) or size > self.max_size:
            return None
        self._position = end
        return data[begin:end]

    def _begin(self, kind: Kind, descriptors: int, buffers: int, size: int) -> Frame | None:
        """Start on a frame that does not lie in `data` as a whole, or has buffers."""
        table = self._position + HEADER_SIZE
        body = table + 8 * buffers
        if len(self._data) < body:
            return None
        sizes = [size, *struct.unpack_from(f"<{buffers}Q", self._data, table)]
        limit = self.max_size if kind in LIMITED else UNLIMITED
        if sum(sizes) > limit:
            if limit == UNLIMITED:
                raise ProtocolError(f"a frame says that it has {sum(sizes)} bytes")
            raise MessageTooLarge(sum(sizes), limit)
        small = sum(sizes) < READ_SIZE
        if small and len(self._data) - body < sum(sizes):
            return None  # it will soon lie there whole
        self._position = body
        self._partial = _Partial(kind, descriptors, sizes)
        return self._go_on(self._partial)

    def _go_on(self, partial: _Partial) -> Frame | None:
        """Fill the parts in turn: first from `data`, then by way of `target`."""
        while self.target is None:
            if partial.complete:
                self._partial = None
                body, *buffers = partial.parts
                return Frame(partial.kind, body, buffers, self._take(partial.descriptors))
            part = partial.add_part()
            have = self._data[self._position : self._position + len(part)]
            part[: len(have)] = have
            self._position += len(have)
            if len(have) < len(part):
                self.target = part[len(have) :]
        return None

    def _take(self, count: int) -> list[int]:
        if count > len(self.descriptors):
            raise ProtocolError(f"{count} descriptors announced, {len(self.descriptors)} came")
        return [self.descriptors.popleft() for _ in range(count)]


class _Partial:
    """A frame under way: its parts (body, then buffers) are allocated one after the other."""

    def __init__(self, kind: Kind, descriptors: int, sizes: list[int]) -> None:
        self.kind = kind
        self.descriptors = descriptors
        self.sizes = sizes
        self.parts: list[Buffer] = []

    @property
    def complete(self) -> bool:
        return len(self.parts) == len(self.sizes)

    @property
    def size(self) -> int:
        return sum(len(part) for part in self.parts)

    def add_part(self) -> memoryview:
        part = allocate(self.sizes[len(self.parts)])
        self.parts.append(part)
        return memoryview(part)


def allocate(size: int) -> bytearray | mmap.mmap:
    """Writable memory of `size` bytes; a large piece is not touched before it is filled."""
    if size < LARGE:
        return bytearray(size)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as exc:
        raise ProtocolError(f"there is no memory for a message of {size} bytes") from exc
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
