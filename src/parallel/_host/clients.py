"""Clients: the processes of a host as its fork server hears them, each at its connection.

What they ask is read and cut into requests, what they are told is written as fast as they read it.
No client is waited for, and none can do harm: who says what makes no sense is told so and lost,
who does not read is not read from.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from .._endpoint import MAX_DESCRIPTORS, Endpoint, close_all
from .._wire.requests import Cut, Request, RequestReader, encode
from ..errors import ProtocolError

MAX_UNWRITTEN = 1 << 18
"""Bytes that wait for a client before its own requests have to wait."""

Answer: TypeAlias = Callable[[int, Request, list[int]], None]
Lost: TypeAlias = Callable[[int], None]
Undelivered: TypeAlias = Callable[[int, Request, OSError], None]


class Client:
    """A process of this host as seen from here: its connection."""

    def __init__(self, number: int, endpoint: Endpoint) -> None:
        self.number = number
        self.endpoint = endpoint
        self.reader = RequestReader()
        self.events = 0
        """What the selector waits for."""

    def fileno(self) -> int:
        """For the selector."""
        return self.endpoint.sock.fileno()

    @property
    def wanted_events(self) -> int:
        """Who does not read our answers has to wait with further requests."""
        unwritten = self.endpoint.unwritten
        reading = selectors.EVENT_READ if unwritten < MAX_UNWRITTEN else 0
        return reading | (selectors.EVENT_WRITE if unwritten else 0)


class Clients:
    """All of them, by number; the selector's data are functions that take its events.

    `answer` gets each request, with its descriptors; `lost` who speaks no more, which is no client
    by then; `undelivered` to whom something could not be sent, what, and why.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        answer: Answer,
        lost: Lost,
        undelivered: Undelivered,
    ) -> None:
        self._selector = selector
        self._answer = answer
        self._lost = lost
        self._undelivered = undelivered
        self._clients: dict[int, Client] = {}

    def add(self, number: int, endpoint: Endpoint) -> None:
        """Listen to a process; its endpoint is ours from here on."""
        self._clients[number] = client = Client(number, endpoint)
        client.events = client.wanted_events
        self._selector.register(client, client.events, partial(self._serve, client))

    def remove(self, number: int) -> None:
        """Close the connection of a process, if it still has one."""
        client = self._clients.pop(number, None)
        if client is not None:
            self._selector.unregister(client)
            client.reader.lose_descriptors()
            client.endpoint.close()

    def send(self, number: int, request: Request, descriptors: Sequence[int] = ()) -> None:
        """Send, now or when the process reads; the descriptors are closed whatever happens."""
        client = self._clients.get(number)
        if client is None:
            close_all(descriptors)
            return
        try:
            client.endpoint.push([encode(request, len(descriptors))], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            client.endpoint.drop()  # it is dying; its exit or its end of file will tell
        except OSError as exc:  # too many descriptors on their way between processes, for example
            client.endpoint.drop()
            self._undelivered(number, request, exc)
        self._update_events(client)

    def _update_events(self, client: Client) -> None:
        wanted = client.wanted_events
        if wanted == client.events or client.number not in self._clients:
            return
        self._selector.modify(client, wanted, partial(self._serve, client))
        client.events = wanted

    def _serve(self, client: Client, events: int) -> None:
        if client.number not in self._clients:
            return  # removed by an event of the same round
        try:
            if events & selectors.EVENT_WRITE:
                client.endpoint.write()
            if events & selectors.EVENT_READ:
                self._read(client)
        except ProtocolError as exc:
            self.send(client.number, Cut(exc.reason))
            self._lose(client)
        except OSError:
            self._lose(client)
        self._update_events(client)

    def _read(self, client: Client) -> None:
        reader = client.reader
        data = client.endpoint.read(reader.descriptors)
        if data is None:
            return
        if not data:
            self._lose(client)
            return
        assert isinstance(data, bytes)
        if client.endpoint.descriptors_lost:
            client.endpoint.descriptors_lost = False
            reader.lose_descriptors()
        reader.feed(data)
        while (item := reader.next()) is not None:
            self._answer(client.number, *item)
        if len(reader.descriptors) > MAX_DESCRIPTORS:
            raise ProtocolError("there came more descriptors than any request has")

    def _lose(self, client: Client) -> None:
        """A client speaks no more; if it is a process of ours, it may still run and end."""
        self.remove(client.number)
        self._lost(client.number)
