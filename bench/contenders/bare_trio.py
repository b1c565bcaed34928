"""The bare trio loop: a socket pair between two processes, no framing, no pickling."""

import os
import socket
import time

import trio

from bench.cpus import Layout, ends, pin
from bench.trio_turns import arriving
from bench.turns import Turns

MESSAGE = b"ping"


def roundtrip(turns: Turns, layout: Layout) -> None:
    """Send a few bytes to a forked process that runs the same loop, and await them back."""
    cpu, peers_cpu = ends(layout)
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            here.close()
            pin(peers_cpu)
            trio.run(serve, there)
        finally:
            os._exit(0)
    there.close()
    pin(cpu)
    trio.run(call, here, turns)
    os.waitpid(pid, 0)


async def call(sock: socket.socket, turns: Turns) -> None:
    """Time round trips; close the socket at the end."""
    sock.setblocking(False)
    with sock:
        async for operations in arriving(turns):
            start = time.perf_counter()
            for _ in range(operations):
                sock.send(MESSAGE)
                await trio.lowlevel.wait_readable(sock)
                sock.recv(4096)
            turns.report([(time.perf_counter() - start) / operations])


async def serve(sock: socket.socket) -> None:
    """Send everything back until the peer closes."""
    sock.setblocking(False)
    while True:
        await trio.lowlevel.wait_readable(sock)
        data = sock.recv(4096)
        if not data:
            return
        sock.send(data)
