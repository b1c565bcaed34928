"""A relay: connections through it are far, slow or lossy.

    python relay.py ADDRESS PORT DELAY RATE LOSS

It prints the port of 127.0.0.1 where it listens. A lost packet shows in a TCP connection as a
pause, after which it and all that was held up behind it arrive; so it does here.
"""

from __future__ import annotations

import queue
import random
import socket
import sys
import threading
import time
from dataclasses import dataclass

SEGMENT = 1448
"""Bytes that one packet carries."""

UNDER_WAY = 4096
"""Segments that may be under way in one direction. Who sends more has to wait, as with TCP."""

RETRANSMISSION = 0.2
"""Seconds after a round trip's time until TCP repeats what was not acknowledged, at least."""


@dataclass
class Line:
    """One direction of a line: when each segment arrives. None overtakes another."""

    delay: float
    rate: float
    loss: float
    dice: random.Random
    free: float = 0.0
    """When the next segment can be sent."""

    def arrival(self, now: float, size: int) -> float:
        self.free = max(now, self.free) + size / self.rate
        if self.dice.random() < self.loss:
            self.free += 2 * self.delay + RETRANSMISSION
        return self.free + self.delay


def pump(source: socket.socket, target: socket.socket, line: Line) -> None:
    """Carry one direction to its end, and the end too."""
    under_way: queue.Queue[tuple[float, bytes]] = queue.Queue(UNDER_WAY)
    threading.Thread(target=deliver, args=(under_way, source, target), daemon=True).start()
    data = b"more"
    while data:
        try:
            data = source.recv(SEGMENT)
        except OSError:
            data = b""
        now = time.monotonic()
        under_way.put((line.arrival(now, len(data)) if data else now, data))


def deliver(
    under_way: queue.Queue[tuple[float, bytes]], source: socket.socket, target: socket.socket
) -> None:
    """Hand over each segment when it is due; if nobody takes it any more, tell the sender."""
    data = b"more"
    while data:
        due, data = under_way.get()
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
        except OSError:
            hang_up(source)


def hang_up(side: socket.socket) -> None:
    """Its reader sees the end, and its peer too."""
    try:
        side.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already


def main(address: str, port: str, delay: str, rate: str, loss: str) -> None:
    """Relay every connection until killed."""
    dice = random.Random(1)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection((address, int(port)))
        except OSError:
            near.close()
            continue
        for source, target in ((near, far), (far, near)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = Line(float(delay), float(rate), float(loss), dice)
            threading.Thread(target=pump, args=(source, target, line), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
