"""Who speaks on a connection, and why somebody stopped: the small frames beside the messages."""

from __future__ import annotations

import json
from typing import Literal, TypeAlias

from ..errors import ProtocolError
from .frames import Buffer
from .record import Record


class Peer(Record):
    """A process as others see it; `process` is its number at its fork server.

    `via` names the other hosts that its connection was handed over, and leads through.
    """

    host: str
    process: int
    pid: int
    name: str
    via: tuple[str, ...] = ()


Reason: TypeAlias = Literal["failed", "cancelled", "slow", "abandoned"]
_REASONS = ("failed", "cancelled", "slow", "abandoned")


class Reset(Record):
    """Why a side stopped without a proper end."""

    reason: Reason
    text: str = ""


def encode_peer(peer: Peer) -> bytes:
    """The body of a HELLO."""
    return json.dumps(peer._asdict()).encode()


def decode_peer(body: Buffer) -> Peer:
    """The body of a HELLO; raises `ProtocolError`."""
    try:
        fields = json.loads(bytes(body))
        via = tuple(map(str, fields["via"]))
        host, name = str(fields["host"]), str(fields["name"])
        return Peer(host, int(fields["process"]), int(fields["pid"]), name, via)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as exc:
        raise ProtocolError(f"a greeting that makes no sense: {bytes(body)[:80]!r}") from exc


def encode_reset(reset: Reset) -> bytes:
    """The body of a RESET."""
    return json.dumps([reset.reason, reset.text[:10_000]]).encode()


def decode_reset(body: Buffer) -> Reset:
    """The body of a RESET; raises `ProtocolError`."""
    try:
        reason, text = json.loads(bytes(body))
        if reason not in _REASONS:
            raise ValueError(reason)
        return Reset(reason, str(text))
    except (ValueError, TypeError, RecursionError) as exc:
        raise ProtocolError(f"a reset that makes no sense: {bytes(body)[:80]!r}") from exc
