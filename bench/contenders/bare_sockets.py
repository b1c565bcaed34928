"""Bare sockets: the least that moving an array between two processes can cost."""

import os
import socket

import numpy

from bench import payload
from bench.clock import timed
from bench.turns import Turns

BUFFER = 2**20  # bytes on their way; with the kernel's default of 208 KiB it is a third slower


def array(turns: Turns) -> None:
    """Send an array's bytes to a forked process and receive them back, each time into a new one."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    pid = os.fork()
    if pid == 0:
        try:
            here.close()
            serve(there)
        finally:
            os._exit(0)
    there.close()
    sent = payload.array()
    with here:
        for operations in turns:
            turns.report([timed(lambda: echo(here, sent)) for _ in range(operations)])
    os.waitpid(pid, 0)


def echo(sock: socket.socket, sent: payload.Array) -> None:
    """Send an array and check what comes back."""
    sock.sendall(sent.data)
    received = receive(sock)
    assert received is not None
    payload.check(sent, received)


def serve(sock: socket.socket) -> None:
    """Send every array back until the peer closes."""
    while (received := receive(sock)) is not None:
        sock.sendall(received.data)
        del received


def receive(sock: socket.socket) -> payload.Array | None:
    """Receive one array into its own memory; None at the end."""
    received = numpy.empty(payload.SIZE // 8)
    rest = received.data.cast("B")
    while rest:
        count = sock.recv_into(rest)
        if count == 0:
            return None
        rest = rest[count:]
    return received
