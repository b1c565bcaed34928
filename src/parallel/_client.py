"""`Client`: whoever holds one of a hub's channels, and the connection to it."""

from __future__ import annotations

import socket
from typing import Protocol

import trio

from ._channel import Wire
from ._member import Member
from ._wire.greetings import Peer


class Client:
    """The other side of one of a hub's connections: who holds that channel."""

    __slots__ = ("__weakref__", "_wire", "label")

    def __init__(self, wire: HubWire, label: str | None) -> None:
        self._wire = wire
        self.label = label

    @property
    def host(self) -> str:
        """The name of its host."""
        return self._peer.host

    @property
    def pid(self) -> int:
        """Its process."""
        return self._peer.pid

    @property
    def name(self) -> str:
        """The name of its process: what it runs."""
        return self._peer.name

    @property
    def _peer(self) -> Peer:
        return self._wire.peer or Peer("?", -1, 0, "?")

    def __repr__(self) -> str:
        label = f" {self.label!r}" if self.label else ""
        return f"<client{label} {self.name!r} pid {self.pid} on {self.host!r}>"


class Owner(Protocol):
    """Whose connections they are."""

    def on_connected(self, wire: HubWire) -> None:
        """A client has said who it is."""


class HubWire(Wire):
    """One of a hub's connections."""

    def __init__(self, sock: socket.socket, member: Member, owner: Owner, label: str | None):
        super().__init__(sock, member)
        self.client = Client(self, label)
        self.owner = owner
        self.connected = False
        self.ready = False
        """It stands in the listener's queue of connections to look at."""

    @property
    def why_lost(self) -> BaseException:
        """As well as it is known."""
        return self.explanation or trio.BrokenResourceError("it was lost without a word")

    def on_peer(self) -> None:
        super().on_peer()
        self.owner.on_connected(self)
