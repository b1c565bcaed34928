"""Sockets that listen: what others could connect or send to, as /proc tells."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import support

TCP_LISTENS = "0A"
UDP_UNCONNECTED = "07"
UNIX_LISTENS = 0x10000
UNIX_DATAGRAM = "0002"


@dataclass(frozen=True, order=True)
class Listener:
    """A process that listens."""

    pid: int
    kind: str
    """tcp, tcp6, udp, udp6 or unix."""
    address: str
    """As 127.0.0.1:22; of a unix socket its path, with @ in front of an abstract one."""


def listening(pids: Iterable[int]) -> list[Listener]:
    """What these processes listen on, each in its own network namespace.

    Who is gone listens on nothing. A process that may not be looked into is an error.
    """
    found = []
    for pid in pids:
        process = Path(f"/proc/{pid}")
        try:
            inodes = set(_sockets(process))
            # Read after the descriptors: a socket of theirs that listens by then is in it.
            found += [
                Listener(pid, kind, address)
                for kind, address, inode in _listeners(process / "net")
                if inode in inodes
            ]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def listening_with_mark(mark: str) -> list[Listener]:
    """What all processes of a test listen on, this one included."""
    return listening([os.getpid(), *support.marked_processes(mark)])


def _sockets(process: Path) -> Iterator[str]:
    """The inodes of the sockets that a process has open."""
    for name in os.listdir(process / "fd"):
        try:
            target = os.readlink(process / "fd" / name)
        except FileNotFoundError:
            continue  # closed in the meantime
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _listeners(net: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, address and inode of all that listen in a network namespace."""
    for kind, listens in (("tcp", TCP_LISTENS), ("udp", UDP_UNCONNECTED)):
        for family in (kind, f"{kind}6"):
            for fields in _rows(net / family):
                if fields[3] == listens:
                    yield family, _address(fields[1]), fields[9]
    for fields in _rows(net / "unix"):
        # A name that others can send to makes a listener of a datagram socket.
        bound = len(fields) > 7
        if int(fields[3], 16) & UNIX_LISTENS or (fields[4] == UNIX_DATAGRAM and bound):
            yield "unix", fields[7] if bound else "", fields[6]


def _rows(table: Path) -> Iterator[list[str]]:
    """The fields of a table's lines. A kernel without IPv6 lacks two of the tables."""
    try:
        lines = table.read_text().splitlines()
    except FileNotFoundError:
        return
    for line in lines[1:]:
        yield line.split(maxsplit=7 if table.name == "unix" else -1)


def _address(text: str) -> str:
    """An address as people write it. The kernel prints words of 32 bits as they lie in memory."""
    words, port = text.split(":")
    packed = b"".join(
        int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8)
    )
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"
