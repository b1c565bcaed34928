"""multiprocessing.Pipe: pickled objects over a socket pair."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from bench import payload
from bench.clock import timed
from bench.turns import Turns

FORK = multiprocessing.get_context("fork")


def roundtrip(turns: Turns) -> None:
    """Send a small string and receive it back."""
    with connected(echo) as pipe:
        for operations in turns:
            start = time.perf_counter()
            for _ in range(operations):
                pipe.send("ping")
                pipe.recv()
            turns.report([(time.perf_counter() - start) / operations])


def oneway(turns: Turns) -> None:
    """Send small strings; until the receiver's count comes back."""
    with connected(count) as pipe:
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
    with connected(echo) as pipe:
        for operations in turns:
            turns.report([timed(lambda: echo_array(pipe, sent)) for _ in range(operations)])


@contextlib.contextmanager
def connected(serve: Callable[[Connection], None]) -> Iterator[Connection]:
    """Connect a pipe to a forked process that serves it until it is closed."""
    here, there = FORK.Pipe()
    worker = FORK.Process(target=run_server, args=(serve, here, there))
    worker.start()
    there.close()
    with here:
        yield here
    worker.join()


def run_server(serve: Callable[[Connection], None], here: Connection, there: Connection) -> None:
    """Serve one end of a pipe, having closed the other."""
    here.close()
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
