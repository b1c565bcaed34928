"""Link frames: how many streams share one stream of bytes between two hosts.

A frame is a header (what it is, which stream, a number) and for some kinds as many bytes as the
number says. The bytes of a DATA frame are passed on as they come, so a link holds none of them.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import ProtocolError

HEADER = struct.Struct("<BQQ")
MAX_DATA = 1 << 18
"""Bytes of one DATA frame: what waits behind it waits for no more than that."""

MAX_MESSAGE = 1 << 20
"""Bytes of one MESSAGE."""


class Kind(enum.IntEnum):
    """What a link frame says; the number of each in brackets."""

    MESSAGE = 1  # [bytes] a request of `requests`, in JSON
    OPEN = 2  # [stream] a new stream, on its way beside what that stream sends next (0: messages)
    DATA = 3  # [bytes] of a stream
    CREDIT = 4  # [bytes] that the stream may send beyond what it might before
    END = 5  # [0] the stream sends no more
    RESET = 6  # [0] the stream takes no more; its sender shall end
    PING = 7  # [token] are you there?
    PONG = 8  # [token] yes


_KINDS = {int(kind): kind for kind in Kind}
_LIMITS = {Kind.MESSAGE: MAX_MESSAGE, Kind.DATA: MAX_DATA}


class LinkFrame(NamedTuple):
    """A frame; of DATA a piece as it came, of MESSAGE all."""

    kind: Kind
    stream: int
    number: int
    body: bytes | memoryview


def encode(kind: Kind, stream: int, number: int) -> bytes:
    """A frame up to its bytes, which follow as they are."""
    return HEADER.pack(kind, stream, number)


class LinkReader:
    """Cuts a stream of bytes into frames; the bytes may come cut anywhere."""

    def __init__(self) -> None:
        self._held = b""
        self._kind = Kind.DATA
        self._stream = 0
        self._missing = 0
        """Bytes of the current DATA that have not come yet."""

    def feed(self, data: bytes | memoryview) -> Iterator[LinkFrame]:
        """What has come as a whole by now; raises `ProtocolError` for what is no frame."""
        view = memoryview(self._held + bytes(data)) if self._held else memoryview(data)
        self._held = b""
        while view:
            if self._missing:
                piece = view[: self._missing]
                self._missing -= len(piece)
                view = view[len(piece) :]
                yield LinkFrame(Kind.DATA, self._stream, len(piece), piece)
                continue
            if len(view) < HEADER.size:
                break
            number_of_kind, stream, number = HEADER.unpack_from(view)
            kind = _KINDS.get(number_of_kind)
            limit = _LIMITS.get(kind) if kind is not None else None
            too_much = limit is not None and number > limit
            if kind is None or too_much or (kind is Kind.DATA and not number):
                raise ProtocolError(f"a link frame begins with {bytes(view[: HEADER.size]).hex()}")
            if kind is Kind.DATA:
                self._stream, self._missing = stream, number
                view = view[HEADER.size :]
                continue
            size = number if kind is Kind.MESSAGE else 0
            end = HEADER.size + size
            if len(view) < end:
                break
            body = bytes(view[HEADER.size : end])
            view = view[end:]
            yield LinkFrame(kind, stream, number, body)
        self._held = bytes(view)
