"""Values as bytes that any transport can carry, pickled as messages are.

For what does not travel on a channel of ours: descriptors cannot come along.
"""

from __future__ import annotations

import pickle
from typing import Any

from ._wire.codec import pack, unpack
from .errors import NotSendable


def dumps(value: object, what: str = "the value") -> bytes:
    """Raises `NotSendable`, for a channel too."""
    packed = pack(value, what)
    if packed.passengers:
        culprit = type(packed.passengers[0]).__name__
        raise NotSendable(what, culprit, "this worker is reached by no channel that could carry it")
    if packed.buffers:
        return b"b" + pickle.dumps((packed.body, [bytearray(each) for each in packed.buffers]), 5)
    return b"p" + packed.body


def loads(data: bytes, what: str = "a value") -> Any:
    """Raises `RemoteError` for whatever goes wrong in there."""
    if data[:1] == b"p":
        return unpack(memoryview(data)[1:], what=what)
    body, buffers = pickle.loads(memoryview(data)[1:])
    return unpack(body, buffers, what=what)
