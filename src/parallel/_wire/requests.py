"""What a process and its host's fork server say to each other, and the agents among themselves.

A process asks its fork server for a process on any host. What is meant for another host goes on to
the agent of its own, from there to the root's agent, to the agent of the other host and to the fork
server there; what that says comes back the same way. At each step the message is the same, only
the number of the request is that of the step.

Each message is a small JSON list behind a header with its length and the number of descriptors
that travel with it. JSON, not pickle: the fork server must survive whatever a client sends, and
runs none of a client's code. Large things (functions, arguments, results) never come this way.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque
from typing import TypeAlias, get_args

from ..errors import ProtocolError
from .record import Record

HEADER = struct.Struct("<IH")
MAX_REQUEST = 1 << 16
MAX_NAME = 160
MAX_TEXT = 5_000
"""Characters of a text that would not fit otherwise; one takes up to 12 bytes."""


class Start(Record):
    """Client: start a process. Descriptors: its control connection and, for a hub, a channel.

    `owner_host` and `owner` say who asks, where that is a process of another host.
    """

    request: int
    host: str
    name: str
    owner_host: str = ""
    owner: int = 0


class Cancel(Record):
    """Client: cancel the process of that request; kill it in `grace` seconds (None: as usual)."""

    request: int
    grace: float | None = None


class Watch(Record):
    """Client: say so when that process is gone."""

    host: str
    process: int


class Serve(Record):
    """A worker: I am this host's agent; what concerns other hosts comes to me."""


class Survey(Record):
    """Client: write who runs (everywhere; to another host's agent: there) to the descriptor."""


class Stop(Record):
    """Root: end. To another host's agent: end the host."""


class Ready(Record):
    """Fork server, to the root at the start. Descriptor: the table of processes."""

    pid: int


class NotReady(Record):
    """Fork server, to the root at the start: why there is none."""

    reason: str


class Cut(Record):
    """Fork server: what you sent makes no sense, so this is the last that you hear."""

    reason: str


class Begin(Record):
    """Fork server, to a spare: be this process. Descriptors: as in `Start`."""

    process: int
    owner_host: str
    owner: int
    name: str


class Started(Record):
    """Fork server: the process of that request."""

    request: int
    process: int
    pid: int


class Refused(Record):
    """Fork server: there will be no process for that request, and why."""

    request: int
    reason: str


class Exited(Record):
    """Fork server: the process of that request, and everything below it, is gone."""

    request: int
    returncode: int
    cancelled: bool
    maybe_oom: bool
    stderr: str = ""


class Lost(Record):
    """Fork server: the host of the process of that request is gone, and the process with it."""

    request: int
    host: str
    reason: str


class Gone(Record):
    """Fork server: a watched process is gone."""

    host: str
    process: int
    pid: int
    name: str
    returncode: int | None
    cancelled: bool
    maybe_oom: bool


class HostUp(Record):
    """Agent, to the root's: this host is there."""

    host: str
    slots: int
    python: str
    pid: int


class HostDown(Record):
    """Agent: that host is there no more, and why. Fork server, to who watches a process of it."""

    host: str
    reason: str


class Running(Record):
    """Fork server, to its agent, and that to the root's: so many processes run on this host."""

    processes: int


class News(Record):
    """Root's agent, to the others: the state of these hosts, a list of `HostState` in JSON."""

    hosts: str


class Output(Record):
    """Fork server, to its agent: a process begins. Descriptors: what it prints, and its errors."""

    process: int
    pid: int
    name: str


class Failed(Record):
    """Fork server, to its agent: that process is dead; what were its last words?"""

    process: int


class Words(Record):
    """Agent: the last lines of that process's errors."""

    process: int
    text: str


Request: TypeAlias = (
    Start
    | Cancel
    | Watch
    | Serve
    | Survey
    | Stop
    | Ready
    | NotReady
    | Cut
    | Begin
    | Started
    | Refused
    | Exited
    | Lost
    | Gone
    | HostUp
    | HostDown
    | Running
    | News
    | Output
    | Failed
    | Words
)

_TYPES: dict[str, type[Request]] = {kind.__name__: kind for kind in get_args(Request)}
_PLAIN_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "str": str,
    "bool": bool,
    "float | None": (float, type(None)),  # an int may be too large to become one
    "int | None": (int, type(None)),
}
_FIELDS = {
    kind: [
        (name, _PLAIN_TYPES[str(getattr(annotation, "__forward_arg__", annotation))])
        for name, annotation in kind.__annotations__.items()
    ]
    for kind in _TYPES.values()
}


def encode_body(request: Request) -> bytes:
    """The bytes of a message without its header, of any length."""
    return json.dumps([type(request).__name__, *request]).encode()


def encode(request: Request, descriptors: int = 0) -> bytes:
    """The bytes of a message that travels with that many descriptors."""
    body = encode_body(request)
    if len(body) > MAX_REQUEST:  # the end of a traceback says most
        fields = [value[-MAX_TEXT:] if isinstance(value, str) else value for value in request]
        body = json.dumps([type(request).__name__, *fields]).encode()
    return HEADER.pack(len(body), descriptors) + body


class RequestReader:
    """Cuts a stream of bytes into messages; the bytes may come cut anywhere."""

    def __init__(self) -> None:
        self.descriptors: deque[int] = deque()
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take bytes as they were read."""
        self._data += data

    def next(self) -> tuple[Request, list[int]] | None:
        """The next message with its descriptors, or None while it is not complete.

        A descriptor that did not come (the receiver had no room for it) leaves the list short.
        Raises `ProtocolError` for bytes that are no message.
        """
        if len(self._data) < HEADER.size:
            return None
        length, count = HEADER.unpack_from(self._data)
        if length > MAX_REQUEST:
            raise ProtocolError(f"a request says that it has {length} bytes")
        end = HEADER.size + length
        if len(self._data) < end:
            return None
        request = decode(self._data[HEADER.size : end])
        self._data = self._data[end:]
        count = min(count, len(self.descriptors))
        return request, [self.descriptors.popleft() for _ in range(count)]

    def lose_descriptors(self) -> None:
        """Some did not arrive, and nobody can tell whose: close the ones that did."""
        while self.descriptors:
            os.close(self.descriptors.popleft())


def decode(body: bytes) -> Request:
    """The message in `body`; raises `ProtocolError` where it is none."""
    try:
        name, *values = json.loads(body)
        kind = _TYPES[name]
        fields = _FIELDS[kind]
        if len(values) != len(fields):
            raise ValueError("its number of fields")
        for (field, types), value in zip(fields, values, strict=True):
            if not isinstance(value, types):
                raise ValueError(f"field {field}")
            if value != value:  # a NaN would stand in the way of every other deadline
                raise ValueError(f"field {field}")
        return kind(*values)
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise ProtocolError(f"a request that makes no sense: {body[:80]!r}") from exc
