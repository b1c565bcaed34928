"""multiprocessing.Pipe: pickled objects over a socket pair."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from bench import payload
from bench.clock import timed
from bench.cpus import Cpu, Layout, ends, pin
from bench.turns import Turns

FORK = multiprocessing.get_context("fork")


def roundtrip(turns: Turns, layout: Layout) -> None:
    """Send a small string and receive it back."""
    with connected(echo, ends(layout)) as pipe:
        for operations in turns:
            start = time.perf_counter()
            for _ in range(operations):
                pipe.send("ping")
                pipe.recv()
            turns.report([(time.perf_counter() - start) / operations])


def oneway(turns: Turns) -> None:
    """Send small strings; until the receiver's count comes back."""
    with connected(count, ends("apart")) as pipe:
        for operations in turns:
            start = time.perf_counter()
            for _ in range(operations):
                pipe.send("ping")
            pipe.send(None)
            assert pipe.recv() == operations
            turns.report([(time.perf_counter() - start) / operations])


def array(turns: Turns) -> None:
    """Send an array and receive it back."""
    sent = payload.array()
    with connected(echo, ends("free")) as pipe:
        for operations in turns:
            turns.report([timed(lambda: echo_array(pipe, sent)) for _ in range(operations)])


@contextlib.contextmanager
def connected(serve: Callable[[Connection], None], cpus: tuple[Cpu, Cpu]) -> Iterator[Connection]:
    """Connect a pipe to a forked process that serves it until it is closed; pin both."""
    here, there = FORK.Pipe()
    worker = FORK.Process(target=run_server, args=(serve, here, there, cpus))
    worker.start()
    there.close()
    pin(cpus[0])
    with here:
        yield here
    worker.join()


def run_server(
    serve: Callable[[Connection], None],
    here: Connection,
    there: Connection,
    cpus: tuple[Cpu, Cpu],
) -> None:
    """Serve one end of a pipe, having closed the other."""
    here.close()
    pin(cpus[1])
    with contextlib.suppress(EOFError):
        serve(there)


def echo(pipe: Connection) -> None:
    """Send everything back."""
    while True:
        pipe.send(pipe.recv())


def count(pipe: Connection) -> None:
    """Answer every None with how many messages came before it."""
    while True:
        messages = 0
        while pipe.recv() is not None:
            messages += 1
        pipe.send(messages)


def echo_array(pipe: Connection, sent: payload.Array) -> None:
    """Send an array and check what comes back."""
    pipe.send(sent)
    payload.check(sent, pipe.recv())
