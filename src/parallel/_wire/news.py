"""What the hosts of a cluster know of each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import get_type_hints

from ..errors import ProtocolError
from .record import Record
from .requests import News

ROOT_HOST = "root"
REMOVED = "it was removed"
"""Why a host is down that nobody shall know any more."""


class HostState(Record):
    """A host as the others know it; `down` says why it is not there, "" that it is.

    `order` is its place among the hosts.
    """

    name: str
    slots: int
    python: str
    pid: int
    running: int = 0
    down: str = ""
    order: int = 0


MAX_DOWN = 200
"""Characters of `down` that are told; those who ask for the host to be started get all."""

MAX_HOSTS = 250
"""Hosts in one message, which has a limit of its own."""

_TYPES = [get_type_hints(HostState)[field] for field in HostState._fields]


def encode_news(hosts: Iterable[HostState]) -> Iterator[News]:
    """For the other hosts, in as few messages as may be."""
    states = (state._replace(down=state.down[:MAX_DOWN]) for state in hosts)
    while some := list(islice(states, MAX_HOSTS)):
        yield News(json.dumps([tuple(state) for state in some]))


def decode_news(news: News) -> list[HostState]:
    """What one of `encode_news`'s messages says; raises `ProtocolError`."""
    try:
        states = [HostState(*fields) for fields in json.loads(news.hosts)]
        if all(list(map(type, state)) == _TYPES for state in states):
            return states
        raise ValueError("the type of a field")
    except (ValueError, TypeError, RecursionError) as exc:
        raise ProtocolError(f"news that make no sense: {news.hosts[:80]!r}") from exc
