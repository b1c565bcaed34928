"""A sender: the sending half of a connection, with a bounded buffer.

What `send` accepted goes to the socket at once; what the socket does not take waits in a buffer
that a system task of the running trio empties.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import trio

from ._endpoint import MAX_DESCRIPTORS, Endpoint, close_all
from ._wire.codec import Packed
from ._wire.frames import LARGE, Buffer, Kind, encode, encode_head
from .errors import ProtocolError

BURST = 8
"""So many messages in a row, and those that follow are collected before they are written."""

PACE = 0.001
"""Seconds between two messages of a burst on the average, and that one is held back while others
follow: whoever computes in between does not let trio go on."""

MAX_PATIENCE = 1024
"""At most so many messages until a burst is looked for again."""

MAX_BATCHED = 1 << 12
"""Bytes from which on a message is worth a system call of its own."""

_MESSAGE = Kind.MESSAGE

_unwritten: set[Sender] = set()


class Sender:
    """Accepts frames while there is room, and writes them."""

    def __init__(self, endpoint: Endpoint, buffer_size: int) -> None:
        self.endpoint = endpoint
        self.buffer_size = buffer_size
        self.sent_end = False
        self.at_eof = False
        """The other side is gone, as the receiving half has found."""
        self.closed = False
        self.released = False
        """The socket is closed, or will be when all is written."""
        self.broken = False
        self.cause: BaseException | None = None
        """What ended the connection before its time, where that is known."""
        self._flushing = False
        self._waiting: list[tuple[trio.lowlevel.Task, int]] = []
        self._accepted = 0
        self._batch: list[bytes] = []
        self._batched = 0
        self._direct = 0
        self._patience = BURST
        self._began = 0.0
        """When the batch was, or the counting of `_direct`."""

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` bytes would be accepted now."""
        unwritten = self.unwritten
        return not unwritten or unwritten + size <= self.buffer_size

    @property
    def unwritten(self) -> int:
        """Bytes that have been accepted and not yet been taken by the socket."""
        return self.endpoint.unwritten + self._batched

    @property
    def _written(self) -> int:
        """Bytes that the socket has taken since the beginning."""
        return self._accepted - self.unwritten

    def try_send(self, packed: Packed) -> bool:
        """Accept what needs no waiting at all; False, and nothing was done, for the rest."""
        endpoint = self.endpoint
        if self._batch or endpoint.unwritten or self._direct >= self._patience:
            if not self.has_room(packed.size):
                return False
        elif not packed.buffers and not packed.passengers and len(packed.body) < LARGE:
            self._direct += 1
            frame = encode(_MESSAGE, packed.body)
            self._accepted += len(frame)
            self._write_or_queue(frame)
            return True
        if packed.buffers:
            return False
        self.accept(packed)
        return True

    async def send(self, packed: Packed, kind: Kind = Kind.MESSAGE) -> None:
        """Wait for room, accept, and keep the caller's memory no longer than this call.

        Cancelled before it was accepted, the message was not sent; after that it is sent as a
        whole, and the cancellation waits for the next checkpoint.
        """
        await self.wait_for_room(packed.size)
        self.accept(packed, kind)
        if packed.buffers and self.endpoint.unwritten:
            await self._return_buffers()

    async def wait_for_room(self, size: int) -> None:
        """Until a message of `size` bytes would be accepted; raises when it never will be."""
        while not self.has_room(size):
            await self._wait_until_written(self._written + 1)
            self.check_sending()

    def accept(self, packed: Packed, kind: Kind = Kind.MESSAGE) -> None:
        """Take the message, room or not, with whatever travels in it."""
        if packed.buffers or packed.passengers or len(packed.body) >= LARGE:
            self._accept_with(packed, kind)
        else:
            frame = encode(kind, packed.body)
            self._direct += 1
            if self._direct < self._patience or not self._put_in_batch(frame):
                self._push_one(frame)

    def _accept_with(self, packed: Packed, kind: Kind) -> None:
        descriptors: list[int] = []
        try:
            for passenger in packed.passengers:
                descriptors.append(passenger.depart())
        except BaseException:
            close_all(descriptors)
            raise
        body, sizes = packed.body, [len(buffer) for buffer in packed.buffers]
        head = encode_head(kind, len(body), sizes, len(descriptors))
        begin = [head, body] if len(body) >= LARGE else [head + body]
        try:
            while len(descriptors) > MAX_DESCRIPTORS:
                first, descriptors = descriptors[:MAX_DESCRIPTORS], descriptors[MAX_DESCRIPTORS:]
                self.push(Kind.DESCRIPTORS, descriptors=first)
        except BaseException:
            close_all(descriptors)
            raise
        self._push([*begin, *packed.buffers], descriptors)

    def _put_in_batch(self, frame: bytes) -> bool:
        """Save a system call for each message of a burst: collect them, until trio goes on.

        A message is written at once as a rule. After some in a row they wait for a system task,
        which finds what came until then; when it finds next to nothing, this was no burst, and the
        next attempt comes later.
        """
        if len(frame) > MAX_BATCHED:
            return False
        now = perf_counter()
        if not self._batch:
            if now - self._began > PACE * self._direct:
                self._direct, self._began = 0, now
                return False
            if self.broken or self.endpoint.unwritten or not self.flush_soon():
                return False
            _unwritten.add(self)
            self._began = now
        elif now - self._began > PACE:
            return False
        self._batch.append(frame)
        self._batched += len(frame)
        self._accepted += len(frame)
        return True

    def _write_batch(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        if len(batch) >= BURST:
            self._patience = self._direct = BURST
        else:
            self._patience = min(2 * self._patience, MAX_PATIENCE)
            self._direct = 0
        self._began = perf_counter()
        _unwritten.discard(self)
        self._write_or_queue(b"".join(batch))

    def push(self, kind: Kind, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Send a small frame that needs no room: it ends or begins something."""
        count = 0 if kind is Kind.DESCRIPTORS else len(descriptors)
        frame = encode(kind, body, (), count)
        if descriptors:
            self._push([frame], descriptors)
        else:
            self._push_one(frame)

    def _push_one(self, frame: bytes) -> None:
        if self._batch:
            self._write_batch()
        self._accepted += len(frame)
        self._write_or_queue(frame)

    def _push(self, chunks: Sequence[Buffer], descriptors: Sequence[int]) -> None:
        try:
            if self._batch:
                self._write_batch()
        except trio.BrokenResourceError:
            close_all(descriptors)
            raise
        self._accepted += sum(map(len, chunks))
        self._write_or_queue(chunks, descriptors)

    def _write_or_queue(
        self, chunks: bytes | Sequence[Buffer], descriptors: Sequence[int] = ()
    ) -> None:
        try:
            if isinstance(chunks, bytes):
                self.endpoint.push_one(chunks)
            else:
                self.endpoint.push(chunks, descriptors)
        except OSError as exc:
            self._break(exc)
            raise trio.BrokenResourceError("the other side is gone") from exc
        if self.endpoint.unwritten:
            _unwritten.add(self)
            self.flush_soon()

    async def _wait_until_written(self, mark: int, borrowed: bool = False) -> None:
        """Park until `mark` bytes have gone, or the connection; `borrowed`: not to be cancelled."""
        task = trio.lowlevel.current_task()
        entry = (task, mark)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(entry)
            if not borrowed:
                return trio.lowlevel.Abort.SUCCEEDED
            # The message counts as sent, so this is no moment to raise. Keep a copy and go on.
            self.endpoint.own_unwritten()
            trio.lowlevel.reschedule(task)
            return trio.lowlevel.Abort.FAILED

        self._waiting.append(entry)
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _return_buffers(self) -> None:
        await self._wait_until_written(self._accepted, borrowed=True)

    async def flushed(self) -> None:
        """Wait until nothing waits here any more, or nobody will ever take it."""
        while self.unwritten and not self.broken:
            await self._wait_until_written(self._written + 1)

    def flush_soon(self) -> bool:
        """Write what is left, in a task; False where no trio runs now, then `flush_all` does."""
        if not self._flushing:
            try:
                trio.lowlevel.spawn_system_task(self._flush, name="parallel: flush a connection")
            except RuntimeError:
                return False
            self._flushing = True
        return True

    async def _flush(self) -> None:
        try:
            self._flush_batch()
            while self.endpoint.unwritten:
                try:
                    await trio.lowlevel.wait_writable(self.endpoint.sock)
                    self._write()
                except trio.ClosedResourceError:
                    continue  # `close` woke up the readers; what is unwritten goes on
        finally:
            self._flushing = False

    def _flush_batch(self) -> None:
        try:
            if self._batch:
                self._write_batch()
        except trio.BrokenResourceError:
            return  # whoever sends next will see
        self._after_writing()

    def _write(self) -> None:
        try:
            self.endpoint.write()
        except OSError as exc:
            self._break(exc)
        else:
            self._after_writing()

    def _after_writing(self) -> None:
        self._wake()
        if not self.endpoint.unwritten:
            _unwritten.discard(self)
            if self.released:
                self.endpoint.close()

    def _wake(self) -> None:
        unwritten = self.unwritten
        still_waiting = []
        for task, mark in self._waiting:
            if unwritten and self._written < mark and not (self.broken or self.closed):
                still_waiting.append((task, mark))
            else:
                trio.lowlevel.reschedule(task)
        self._waiting = still_waiting

    def _break(self, exc: BaseException) -> None:
        """Nobody will take what we send. What has arrived can still be received."""
        self.broken = True
        if self.cause is None:
            self.cause = exc if isinstance(exc, ProtocolError) else None
        self.endpoint.drop()
        self._batch, self._batched = [], 0
        _unwritten.discard(self)
        self._wake()
        if self.released:
            self.endpoint.close()

    @property
    def can_send(self) -> bool:
        """Whether anything can still be sent, as far as is known."""
        return not (self.closed or self.sent_end or self.broken or self.at_eof)

    def check_sending(self) -> None:
        """Raise what `send` raises on an end that cannot send any more."""
        if self.closed or self.sent_end:
            raise trio.ClosedResourceError("this end has been closed")
        if self.broken or self.at_eof:
            raise trio.BrokenResourceError("the other side is gone") from self.cause

    def release_writers(self) -> None:
        """Nobody will wait any more: whose memory is still to be written gets it back."""
        if self._waiting and self.endpoint.unwritten:
            self.endpoint.own_unwritten()
        self._wake()

    def give_up(self) -> None:
        """`flush_all` shall not wait for this one."""
        _unwritten.discard(self)


def has_unwritten() -> bool:
    """Whether `flush_all` would have to wait."""
    return bool(_unwritten)


async def flush_all() -> None:
    """Wait until every connection of this process has written what it accepted."""
    while _unwritten:
        sender = next(iter(_unwritten))
        sender.flush_soon()
        await sender.flushed()
