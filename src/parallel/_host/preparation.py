"""What a fork server does before its first fork, so that every worker finds it done."""

from __future__ import annotations

import array
import gc
import importlib
import io
import socket
import sys
import types
from contextlib import ExitStack
from typing import Any

import trio

import parallel

from .._connection import Connection
from .._endpoint import Endpoint, socket_pair
from .._hub import Hub
from .._member import set_current_member
from .._settings import HostSettings
from .._surroundings import encode_surroundings, look_around, remember_environ
from .._wire.codec import pack
from .._wire.frames import Kind
from .._wire.news import ROOT_HOST
from .._wire.requests import Begin, encode
from . import kernel
from .worker import Worker

FORK_SERVER = "parallel-forkserver"
"""The name of the process that forks, also while it rehearses."""

REHEARSALS = 12
"""The interpreter specialises code that has run about eight times."""


def prepare(settings: HostSettings) -> None:
    """What may fail: the host is ready only after it."""
    gc.disable()  # and collect nothing: workers would write into the holes, each page a copy
    kernel.adopt_orphans()
    kernel.raise_open_files()
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what a killed worker printed is not lost
    for name in dir(parallel):
        if name not in ("Farm", "farm", "open_farm"):
            getattr(parallel, name)  # loads it, once for all workers
    for name in settings.preload:
        _preload(name, settings)
    kernel.set_process_name(FORK_SERVER)


def warm_up(settings: HostSettings) -> None:
    """What makes workers smaller, while those who wait for the host hear that it is ready."""
    _rehearse(settings)
    gc.freeze()


def _preload(name: str, settings: HostSettings) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if settings.host == ROOT_HOST or not f"{name}.".startswith(f"{exc.name}."):
            raise  # on other hosts a module of the program's own comes with the first call


def _rehearse(settings: HostSettings) -> None:
    """Run a worker's life a few times in the fork server, before it forks for the first time.

    What the interpreter writes into code and types while it warms up is then shared by all workers
    instead of being written by each: 0.4 MB of 4.4. It takes 20 ms and leaves nothing behind.
    """
    remember_environ()
    try:
        for _ in range(REHEARSALS):
            trio.run(_rehearse_once, settings)
    except (OSError, ValueError):  # not taken, or not arrived
        pass  # there are too many descriptors just now: workers will be larger
    finally:
        set_current_member(None)


async def _rehearse_once(settings: HostSettings) -> None:
    with ExitStack() as stack:
        request, control, channel = (
            [stack.enter_context(end) for end in socket_pair()] for _ in range(3)
        )
        worker = Worker(Endpoint(request[1]), settings, -1)
        caller = Connection(control[0], settings.max_message_size, settings.buffer_size)
        stack.callback(worker.endpoint.close)
        stack.callback(caller.close)
        passed = array.array("i", [control[1].fileno(), channel[1].fileno()])
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)
        begin = Begin(0, settings.host, 0, FORK_SERVER)
        request[0].sendmsg([encode(begin, len(passed))], [rights])
        caller.push(Kind.SETTINGS, encode_surroundings(look_around()))
        caller.accept(pack((_nothing, ())))
        await worker.begin()


async def _nothing(hub: Hub[Any, Any]) -> None:
    await trio.lowlevel.checkpoint()
