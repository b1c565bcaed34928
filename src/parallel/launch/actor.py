"""`Actor`: an actor of tractor's as a host.

tractor stays in the program's first process, where the portal is, and in the actor, which runs
`run_shell`. Between the two the shell's bytes go over a stream of tractor's, and from the first
process to the one that holds the links over a channel of ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio

from .._channel import Channel
from .._client import Client
from .._hub import Hub, open_hub
from .._listener import Disconnected, Message
from ..abc import Launcher, Shell
from ._actor_relay import CHUNK, open_relayed
from ._actor_wire import Wire, Word, open_wire
from .command import SHELL
from .command import run_shell as run_command


@dataclass(frozen=True, slots=True, eq=False)
class Actor(Launcher):
    """A host that an actor of tractor's starts, beside what else it does.

        async with tractor.open_nursery() as nursery:
            portal = await nursery.start_actor("gpu", enable_modules=["parallel.launch.actor"])
            async with parallel.init(cluster=Cluster([Actor(portal)])):
                await parallel.run(work, where="gpu")
            await portal.cancel_actor()

    When the actor is cancelled the host ends as if its link were cut; when the host is left, what
    the actor did for it is cancelled, and the actor goes on. It needs tractor 0.1.0a5 on its own
    terms: Python 3.11, and trio 0.22 or 0.23.

    Args:
        portal: The actor's, from `start_actor`. The actor must be allowed to run
            `parallel.launch.actor`.
        name: The host's name in `where=`; default: the actor's.

    Settings of all hosts: see `parallel.abc.Launcher`.
    """

    portal: Any
    name: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.portal.channel.uid[0])
        Launcher.__post_init__(self)

    def prepare(self) -> AbstractAsyncContextManager[Launcher]:
        """Have the actor start shells for whoever holds the channel that this is replaced by."""
        return self._prepare()

    @asynccontextmanager
    async def _prepare(self) -> AsyncGenerator[Launcher, None]:
        failure: BaseException | None = None
        # Nothing is raised inside of the nursery, so that nothing comes out of it in a group.
        async with open_hub() as hub, trio.open_nursery() as nursery:
            nursery.start_soon(_serve, hub, self.portal)
            try:
                with hub.open_channel() as channel:
                    yield dataclasses.replace(self, portal=channel)
            except BaseException as exc:  # noqa: ASYNC103  # raised below
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def open(self) -> AbstractAsyncContextManager[Shell]:
        """Let the actor start a shell."""
        if not isinstance(self.portal, Channel):
            raise TypeError("an actor is opened as `prepare` gives it, where it has a channel")
        return open_relayed(self.name, self.portal)


# In the program's first process


async def _serve(hub: Hub[Word, Word], portal: Any) -> None:
    """One shell after the other; what goes wrong is for whoever asked for it."""
    async for client, (number, what, *_) in hub:
        if what == "open":
            speaker = _Speaker(hub, client, number)
            try:
                try:
                    await _carry(speaker, portal)
                except (Exception, BaseExceptionGroup) as exc:
                    await speaker.send(["ended", _explain(exc)])
            except trio.BrokenResourceError:
                pass  # nobody is there to be told


class _Speaker(NamedTuple):
    """Who asked for a shell, and which of those that it asked for."""

    hub: Hub[Word, Word]
    client: Client
    number: int

    async def send(self, word: Word) -> None:
        await self.hub.send(self.client, (self.number, *word))


async def _carry(speaker: _Speaker, portal: Any) -> None:
    """Carry a shell's bytes between tractor's stream and our channel."""
    async with portal.open_context(run_shell) as (context, _), context.open_stream() as stream:
        await speaker.send(["started"])
        async with open_wire(stream, portal.channel) as wire, trio.open_nursery() as nursery:
            nursery.start_soon(_carry_in, speaker, wire)
            ended = False
            while not ended:
                word = await wire.receive()
                ended = word[0] == "ended"
                # Before the context is left, which may take for ever when the actor is dead.
                await speaker.send(word)
            nursery.cancel_scope.cancel()


async def _carry_in(speaker: _Speaker, wire: Wire) -> None:
    async for event in speaker.hub.listen():
        if event.client is not speaker.client:
            continue
        if isinstance(event, Message):
            number, *word = event.value
            if number == speaker.number:
                await wire.send(word)
        elif isinstance(event, Disconnected):
            break
    await wire.send(["close"])  # whoever asked for the shell has gone


def _explain(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    text = f"the tractor actor failed: {type(exc).__name__}: {exc}".strip()
    if "ModuleNotExposed" in text:
        text += "\nstart it with enable_modules=['parallel.launch.actor']"
    return text


# In the actor


async def run_shell(ctx: Any) -> None:
    """In the actor: run a shell, until it ends or the other side has done with it."""
    await ctx.started()
    async with ctx.open_stream() as stream, run_command("actor", [SHELL]) as shell:
        async with open_wire(stream, ctx.chan) as wire, trio.open_nursery() as nursery:
            sink, source = trio.open_memory_channel[bytes](0)
            nursery.start_soon(_feed, shell.stdin, source)
            nursery.start_soon(_tell, wire, shell)
            while (word := await wire.receive())[0] in ("in", "eof"):
                if word[0] == "in":
                    await sink.send(word[1])
                else:
                    await sink.aclose()
            nursery.cancel_scope.cancel()


# What `tractor.context` does; this module is used where there is no tractor.
run_shell._tractor_context_function = True  # type: ignore[attr-defined]


async def _feed(stdin: trio.abc.SendStream, source: trio.MemoryReceiveChannel[bytes]) -> None:
    broken = False
    async for data in source:
        try:
            if not broken:
                await stdin.send_all(data)
        except trio.BrokenResourceError:
            broken = True  # it does not read any more; who sends it will hear of its end
    await stdin.aclose()


async def _tell(wire: Wire, shell: Shell) -> None:
    """Tell what the shell writes, then that it has ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_one, wire, "out", shell.stdout)
        if shell.stderr is not None:
            nursery.start_soon(_tell_one, wire, "err", shell.stderr)
    with trio.move_on_after(1):
        while not shell.why_ended():  # noqa: ASYNC110  # it has closed both, so it is about to
            await trio.sleep(0.01)
    await wire.send(["ended", shell.why_ended() or "the shell has closed its output"])


async def _tell_one(wire: Wire, name: str, stream: trio.abc.ReceiveStream) -> None:
    while data := await stream.receive_some(CHUNK):
        await wire.send([name, bytes(data)])
