"""A service: a process that this package starts for itself, and ends when nothing else is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, TypeVarTuple

import trio

from ._api import Options, launch
from ._channel import Channel
from ._hub import Hub
from ._member import Child
from ._process import Process
from ._wire.news import ROOT_HOST

SendT = TypeVar("SendT")
ReceiveT = TypeVar("ReceiveT")
Ts = TypeVarTuple("Ts")


class Service(Generic[SendT, ReceiveT]):
    """A process that belongs to no block and no nursery; who started it ends it."""

    def __init__(self, process: Process[Any], child: Child, channel: Channel[Any, Any]) -> None:
        self.process = process
        self.child = child
        self.channel: Channel[SendT, ReceiveT] = channel


async def start_service(
    fn: Callable[[Hub[SendT, ReceiveT], *Ts], Awaitable[Any]], *args: *Ts, name: str
) -> Service[SendT, ReceiveT]:
    """`spawn` for this package's own ends; raises what keeps it from getting ready."""
    call, channel = launch(fn, args, Options(ROOT_HOST, name, None, None), with_hub=True)
    assert channel is not None
    call.child.is_service = True
    trio.lowlevel.spawn_system_task(call.live, name=f"parallel: {name}")
    try:
        await call.process.ready()
    except BaseException:
        channel.close()
        call.child.cancel(0.0)
        with trio.CancelScope(shield=True):
            await call.process.wait()
        raise
    if not call.process.is_ready:
        channel.close()
        call.process.outcome()
    return Service(call.process, call.child, channel)
