"""One end of a socket pair: a bounded place for what is still to be written, and who owns it.

A driver without a loop: `write` and `read` never block. Whoever has a loop (trio in a program and
its workers, a selector in the fork server) calls them when the socket is ready.

A process that a user forks (with `os.fork`, `multiprocessing`, ...) must not keep our sockets open:
its copies are closed right after the fork.
"""

from __future__ import annotations

import array
import os
import select
import socket
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from ._wire.frames import READ_SIZE, Buffer

MAX_DESCRIPTORS = 200
"""At most so many with one write; Linux takes 253."""

_ANCILLARY = socket.CMSG_SPACE(256 * array.array("i").itemsize)
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_TRUNCATED = int(socket.MSG_CTRUNC)  # as plain numbers: an enum's `&` costs as much as a read
_MAX_GATHER = 64

_endpoints: weakref.WeakSet[Endpoint] = weakref.WeakSet()


class Endpoint:
    """A non-blocking Unix stream socket with its unwritten bytes."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.descriptors_lost = False
        self._outbox: deque[tuple[memoryview, Sequence[int]]] = deque()
        self.unwritten = 0
        _endpoints.add(self)

    def push(self, chunks: Sequence[Buffer], descriptors: Sequence[int] = ()) -> None:
        """Write at once what the socket takes and queue the rest, for `write`.

        The descriptors travel with the first byte; they belong to this endpoint from here on.
        Raises OSError when the connection is broken.
        """
        if self._outbox:
            self._queue(chunks, descriptors)
        else:
            self._queue(chunks, descriptors)
            self.write()

    def push_one(self, chunk: bytes | memoryview) -> None:
        """`push` as for nearly all messages: nothing travels along, and mostly nothing waits."""
        sent = 0
        if not self._outbox:
            try:
                sent = self.sock.send(chunk)
            except BlockingIOError:
                pass
        if sent < len(chunk):
            self._queue([memoryview(chunk)[sent:]], ())

    def _queue(self, chunks: Sequence[Buffer], descriptors: Sequence[int]) -> None:
        for chunk in chunks:
            if len(chunk):
                self._outbox.append((memoryview(chunk).cast("B"), descriptors))
                self.unwritten += len(chunk)
                descriptors = ()

    def write(self) -> bool:
        """Write what the socket takes; True when nothing is left. Raises OSError when broken."""
        outbox = self._outbox
        try:
            while outbox:
                sent = self._write_some()
                self.unwritten -= sent
                while outbox and sent >= len(outbox[0][0]):
                    sent -= len(outbox.popleft()[0])
                if sent:
                    view, _ = outbox[0]
                    outbox[0] = (view[sent:], ())
        except BlockingIOError:
            return False
        return True

    def _write_some(self) -> int:
        view, descriptors = self._outbox[0]
        if not descriptors:
            # Up to the next descriptors, which must travel with their own first byte.
            views = []
            for chunk, passengers in islice(self._outbox, _MAX_GATHER):
                if passengers:
                    break
                views.append(chunk)
            return self.sock.sendmsg(views)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        sent = self.sock.sendmsg([view], [rights])
        self._outbox[0] = (view, ())
        close_all(descriptors)
        return sent

    def own_unwritten(self) -> None:
        """Copy what is still to be written: its memory belongs to somebody who wants it back."""
        self._outbox = deque((memoryview(bytes(view)), fds) for view, fds in self._outbox)

    def read(self, descriptors: deque[int], target: memoryview | None = None) -> bytes | int | None:
        """Read once, into `target` if there is one; what was read, or how much.

        Appends to `descriptors` what came along. None: nothing is there now. b"" or 0: the end.
        A peer that died with unread data in its socket counts as the end too.
        """
        try:
            if target is not None:
                count, ancillary, flags, _ = self.sock.recvmsg_into([target], _ANCILLARY, _CLOEXEC)
                data: bytes | int = count
            else:
                data, ancillary, flags, _ = self.sock.recvmsg(READ_SIZE, _ANCILLARY, _CLOEXEC)
        except BlockingIOError:
            return None
        except (ConnectionResetError, BrokenPipeError):
            return b"" if target is None else 0
        if ancillary:
            descriptors.extend(_descriptors_in(ancillary))
        if flags & _TRUNCATED:
            self.descriptors_lost = True
        return data

    def is_closed_there(self) -> bool:
        """Whether the peer has closed its socket, and not only its sending half."""
        poller = select.poll()
        poller.register(self.sock, 0)
        return any(event & select.POLLHUP for _, event in poller.poll(0))

    def shut(self) -> None:
        """Both sides see the end after what has been sent so far; waiters wake up."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster

    def stop_reading(self) -> None:
        """Let the peer know that what it sends is not wanted."""
        try:
            self.sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # the peer was faster

    def drop_unread(self) -> None:
        """Close the descriptors that lie unread here: somebody may wait for their end."""
        descriptors: deque[int] = deque()
        while self.read(descriptors):
            pass
        close_all(descriptors)

    def drop(self) -> None:
        """Forget what was not written."""
        for _, descriptors in self._outbox:
            close_all(descriptors)
        self._outbox.clear()
        self.unwritten = 0

    def close(self) -> None:
        """Close, with what was not written."""
        self.drop()
        _endpoints.discard(self)
        self.sock.close()


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    if not _CLOEXEC:
        for descriptor in found:
            os.set_inheritable(descriptor, False)
    return found.tolist()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, connected; closed in whatever the process executes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def close_all(descriptors: Iterable[int]) -> None:
    """Close them all, whatever their state."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass


def _close_in_fork() -> None:
    for endpoint in list(_endpoints):
        if endpoint.unwritten:
            endpoint.drop()
        endpoint.sock.close()


os.register_at_fork(after_in_child=_close_in_fork)
