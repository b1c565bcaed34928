"""execnet: gateways over the pipes of a `popen`ed interpreter."""

import time

import execnet

from bench.clock import timed
from bench.cpus import Layout, ends, pin
from bench.memory import SETTLING, private
from bench.turns import Turns

PIN = """
from bench.cpus import pin
pin(channel.receive())
"""
ECHO = """
for item in channel:
    channel.send(item)
"""
COUNT = """
while True:
    count = 0
    while channel.receive() is not None:
        count += 1
    channel.send(count)
"""
IDLE = "import os; channel.send(os.getpid()); channel.receive()"


def process(turns: Turns) -> None:
    """Open a gateway, execute a no-op there, end the gateway; until its process is reaped."""
    for operations in turns:
        turns.report([timed(run_nothing) for _ in range(operations)])


def roundtrip(turns: Turns, layout: Layout) -> None:
    """Send a small string and receive it back."""
    group = execnet.Group()
    ping(turns, pinned(group, ECHO, layout))
    group.terminate(timeout=5)


def oneway(turns: Turns) -> None:
    """Send small strings; until the receiver's count comes back."""
    group = execnet.Group()
    count(turns, pinned(group, COUNT, "apart"))
    group.terminate(timeout=5)


def ping(turns: Turns, channel: execnet.Channel) -> None:
    """Time round trips."""
    for operations in turns:
        start = time.perf_counter()
        for _ in range(operations):
            channel.send("ping")
            channel.receive()
        turns.report([(time.perf_counter() - start) / operations])


def count(turns: Turns, channel: execnet.Channel) -> None:
    """Time one-way messages."""
    for operations in turns:
        start = time.perf_counter()
        for _ in range(operations):
            channel.send("ping")
        channel.send(None)
        assert channel.receive() == operations
        turns.report([(time.perf_counter() - start) / operations])


def memory(turns: Turns) -> None:
    """Open gateways that wait for a message; weigh their processes."""
    for operations in turns:
        group = execnet.Group()
        channels = [group.makegateway("popen").remote_exec(IDLE) for _ in range(operations)]
        pids = [channel.receive() for channel in channels]
        time.sleep(SETTLING)
        turns.report([private(pid) for pid in pids])
        group.terminate(timeout=5)


def pinned(group: execnet.Group, source: str, layout: Layout) -> execnet.Channel:
    """Execute a source in a fresh gateway; pin it and this process."""
    cpu, gateways_cpu = ends(layout)
    channel = group.makegateway("popen").remote_exec(PIN + source)
    channel.send(gateways_cpu)
    pin(cpu)
    return channel


def run_nothing() -> None:
    """Let a fresh gateway do nothing, and wait until its process is gone."""
    group = execnet.Group()
    group.makegateway("popen").remote_exec("pass").waitclose()
    group.terminate(timeout=5)
