"""Workers that talk to their fork server as no worker does: over the bare connection.

Light on imports: every worker loads it.
"""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import trio

import parallel
from parallel._endpoint import socket_pair
from parallel._member import current_member
from parallel._wire.requests import (
    HEADER,
    Cut,
    Gone,
    Refused,
    Request,
    RequestReader,
    Start,
    Started,
    Watch,
    encode,
)


class Line:
    """The connection of this worker, blocking, read by nobody else: for sync functions."""

    def __init__(self) -> None:
        self.sock = current_member().endpoint.sock
        self.sock.setblocking(True)
        self.reader = RequestReader()

    def say(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        sent = self.sock.sendmsg([data], [rights] if descriptors else [])
        self.sock.sendall(data[sent:])

    def ask(self, request: Request, descriptors: Sequence[int] = ()) -> None:
        self.say(encode(request, len(descriptors)), descriptors)

    def start(self, number: int, name: str = "started") -> None:
        """Ask for a process, and hang up on it at once."""
        near, far = socket_pair()
        with near, far:
            self.ask(Start(number, "root", name), [far.fileno()])

    def hear(self) -> Request | None:
        """What the fork server says next; None at the end."""
        while (item := self.reader.next()) is None:
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                return None  # it has not read everything
            if not data:
                return None
            self.reader.feed(data)
        return item[0]


def frame(body: bytes) -> bytes:
    return HEADER.pack(len(body), 0) + body


GARBAGE: dict[str, bytes] = {
    "noise": bytes(range(256)) * 40,
    "zeros": bytes(1000),
    "a length beyond measure": b"\xff" * 100,
    "no JSON": frame(b"Start"),
    "no text": frame(b"\xff\xfe\xfd"),
    "a number": frame(b"17"),
    "a string": frame(b'"Start"'),
    "an object": frame(b'{"Start": 1}'),
    "nothing": frame(b"[]"),
    "a list for a name": frame(b"[[1], 2]"),
    "an unknown request": frame(b'["Dance"]'),
    "too few fields": frame(b'["Start", 1]'),
    "too many fields": frame(b'["Watch", 1, 2]'),
    "fields of another type": frame(b'["Start", "1", 2, 3]'),
    "a number of too many digits": frame(b'["Watch", ' + b"9" * 5000 + b"]"),
    "a grace that is no number": frame(b'["Cancel", 1, NaN]'),
    "a grace beyond all numbers": frame(b'["Cancel", 1, 1' + b"0" * 4000 + b"]"),
    "too deep": frame(b"[" * 60_000),
}

OUT_OF_PLACE: dict[str, bytes] = {
    "Stop": frame(b'["Stop"]'),
    "Ready": frame(b'["Ready", 1]'),
    "NotReady": frame(b'["NotReady", "no"]'),
    "Cut": frame(b'["Cut", "no"]'),
    "Begin": frame(b'["Begin", 1, "root", 0, "no"]'),
    "Started": frame(b'["Started", 1, 1, 1]'),
    "Refused": frame(b'["Refused", 1, "no"]'),
    "Exited": frame(b'["Exited", 1, 0, false, false, ""]'),
    "Exited, elsewhere": frame(b'["Exited", -1, 0, false, false, ""]'),
    "Lost": frame(b'["Lost", -1, "host0", "no"]'),
    "Gone": frame(b'["Gone", "root", 1, 1, "no", 0, false, false]'),
    "HostUp": frame(b'["HostUp", "host0", 1, "3.11", 1]'),
    "HostDown": frame(b'["HostDown", "root", "no"]'),
    "Running": frame(b'["Running", -1]'),
    "News": frame(b'["News", "no"]'),
    "Output": frame(b'["Output", 1, 1, "no"]'),
    "Failed": frame(b'["Failed", 1]'),
    "Words": frame(b'["Words", 1, "no"]'),
    "Survey without a descriptor": frame(b'["Survey"]'),
    "Cancel of nobody": frame(b'["Cancel", 77, null]'),
    "Cancel of a negative number": frame(b'["Cancel", -77, 0.0]'),
    "Watch of a large number": frame(b'["Watch", "root", ' + b"9" * 4000 + b"]"),
    "Watch of a negative number": frame(b'["Watch", "root", -1]'),
}


def speak_garbage(what: str) -> str:
    """What the fork server says to it before it hangs up."""
    line = Line()
    try:
        line.say(GARBAGE[what])
    except BrokenPipeError:
        pass  # it did not wait for the end of it
    answer = line.hear()
    assert isinstance(answer, Cut), answer
    assert line.hear() is None
    return answer.reason


async def speak_garbage_and_run() -> int:
    current_member().endpoint.push([GARBAGE["noise"]])
    return await parallel.run(os.getpid)


async def own_info() -> parallel.ProcessInfo:
    return next(info for info in await parallel.processes() if info.pid == os.getpid())


async def run_among_garbage() -> int:
    """The process that it waits for has begun when the nonsense follows."""
    error: parallel.ProtocolError | None = None
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            while not (await own_info()).children:
                await trio.sleep(0.001)
            current_member().endpoint.push([GARBAGE["noise"]])

        nursery.start_soon(speak)
        try:
            await parallel.run(time.sleep, 1000)
        except parallel.ProtocolError as exc:  # raised below: not every trio's groups can travel
            error = exc
    if error is not None:
        raise error
    return 0


def speak_out_of_place() -> list[str]:
    """Nothing of it is for a worker to say; all of it is well formed."""
    line = Line()
    for data in OUT_OF_PLACE.values():
        line.say(data)
    line.ask(Watch("root", 123456))
    heard: list[str] = []
    while not (isinstance(answer := line.hear(), Gone) and answer.process == 123456):
        assert answer is not None
        heard.append(type(answer).__name__)
    return heard


NAMES = ["\ud800", "\0", "", "a\nb", "e\u0301\u4e2d" * 50, "\u00e9" * 30_000, "%s%n{}"]


def start_with_names() -> int:
    """Of processes that have such a name, how many there were."""
    line = Line()
    for number, name in enumerate(NAMES):
        body = encode(Start(number, "root", name), 1)
        if len(body) > 60_000:  # as short as it can be said
            text = f'["Start", {number}, "root", "{name}"]'.encode()
            body = HEADER.pack(len(text), 1) + text
        near, far = socket_pair()
        with near, far:
            line.say(body, [far.fileno()])
    return count_ends(line, len(NAMES))


def count_ends(line: Line, count: int) -> int:
    """Of so many processes, how many have started and ended."""
    started = 0
    open_ends = count
    while open_ends:
        answer = line.hear()
        assert answer is not None, f"cut off with {open_ends} under way"
        started += isinstance(answer, Started)
        open_ends -= type(answer).__name__ in ("Exited", "Refused")
    return started


GRACES = ["Infinity", "-Infinity", "1e300", "-1.0", "0.0"]


def cancel_with_odd_graces() -> int:
    """How many started and ended, each cancelled with a grace that makes no sense."""
    line = Line()
    near_ends = []
    for number, grace in enumerate(GRACES):
        near, far = socket_pair()
        near_ends.append(near)
        with far:
            line.ask(Start(number, "root", "odd"), [far.fileno()])
        line.say(frame(f'["Cancel", {number}, {grace}]'.encode()))
    return count_ends(line, len(GRACES))


def start_without_descriptors() -> str:
    line = Line()
    line.ask(Start(1, "root", "bare"))
    answer = line.hear()
    assert isinstance(answer, Refused), answer
    return answer.reason


def start_with_a_file() -> int:
    """A descriptor that is no socket."""
    line = Line()
    with open(os.devnull) as file:
        line.ask(Start(1, "root", "odd"), [file.fileno()])
    return count_ends(line, 1)


def start_twice_with_one_number() -> list[str]:
    line = Line()
    near, far = socket_pair()
    with near, far:
        line.ask(Start(1, "root", "twin"), [far.fileno()])
        line.ask(Start(1, "root", "twin"), [far.fileno()])
        heard = [type(line.hear()).__name__ for _ in range(2)]
    return [*heard, type(line.hear()).__name__]


def start_on_an_unknown_host() -> str:
    line = Line()
    near, far = socket_pair()
    with near, far:
        text = '["Start", 1, "%s", "name", "", 0]' % ("\u00e9" * 30_000)
        line.say(HEADER.pack(len(text.encode()), 1) + text.encode(), [far.fileno()])
    answer = line.hear()
    assert isinstance(answer, Refused), answer
    return answer.reason


def speak_by_halves(path: str) -> None:
    """Half a request with descriptors, and then nothing more."""
    line = Line()
    _near, far = socket_pair()
    whole = encode(Start(1, "root", "half"), 1)
    line.say(whole[: len(whole) // 2], [far.fileno()])
    Path(path).touch()
    time.sleep(1000)


def heap_up_descriptors() -> str:
    """Many descriptors with each byte of a request that never ends."""
    line = Line()
    line.say(HEADER.pack(60_000, 1))
    with open(os.devnull) as file:
        while True:
            try:
                line.say(b" ", [file.fileno()] * 200)
            except (BrokenPipeError, ConnectionResetError):
                break
    answer = line.hear()
    assert isinstance(answer, Cut), answer
    return answer.reason


def ask_without_reading(path: str) -> int:
    """Until the fork server takes no more; then read. How many were answered of how many asked."""
    line = Line()
    line.sock.settimeout(0.5)
    asked, rest = 0, b""
    try:
        while True:
            rest = rest or encode(Watch("root", 1_000_000 + asked))
            sent = line.sock.send(rest)
            asked += not rest[sent:]
            rest = rest[sent:]
    except TimeoutError:
        pass
    Path(path).touch()
    while os.path.exists(path):  # the test removes it
        time.sleep(0.005)
    line.sock.settimeout(None)
    for number in range(asked):
        answer = line.hear()
        assert isinstance(answer, Gone), answer
        assert answer.process == 1_000_000 + number
    return asked


def ask_without_end(path: str) -> None:
    """Until it is killed."""
    line = Line()
    Path(path).touch()
    number = 0
    while True:
        number += 1
        if number % 50:
            line.ask(Watch("root", number))
        else:
            line.start(number)
