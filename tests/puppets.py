"""What the tests of channels and hubs run in workers. Each worker imports this: it is small."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import trio

import parallel

Channel = parallel.Channel[Any, Any]
Hub = parallel.Hub[Any, Any]


async def puppet(hub: Hub) -> Any:
    """A hub that does what it is told."""
    async for client, (command, argument) in hub:
        match command:
            case "say":
                for value in argument:
                    await hub.send(client, value)
            case "return":
                return argument
            case "raise":
                raise argument
            case "be killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "read nothing":
                await hub.send(client, "from now on")
                await trio.sleep_forever()
    return "all have ended"


class Explosive:
    """Cannot be unpickled."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> Any:
        return explode, (self.text,)


def explode(text: str) -> None:
    """Whoever unpickles that comes by here."""
    raise LookupError(text)


async def say_something_odd(hub: Hub) -> None:
    """Answer with what cannot be unpickled, and then with what can."""
    async for client, _ in hub:
        await hub.send(client, Explosive(f"made in {os.getpid()}"))
        await hub.send(client, "something sensible")


async def answer_at_length(hub: Hub) -> str:
    """Answer with as many bytes as asked for, at most 100,000."""
    async for client, size in hub:
        try:
            await hub.send(client, bytes(size))
        except parallel.MessageTooLarge:
            await hub.send(client, "it was too large")
    return "x" * 200_000


async def talk_and(end: str, channel: Channel) -> None:
    """A client that says hello and comes to that end, maybe after it has sent its own."""
    await channel.send("hello")
    if end.startswith("end, then "):
        await channel.send_eof()
    match end.removeprefix("end, then "):
        case "close":
            await channel.aclose()
        case "return":
            pass
        case "raise":
            raise ValueError("no")
        case "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(0)
        case "sleep":
            await trio.sleep_forever()


async def ask(channel: Channel, first: int, count: int) -> int:
    """A client: each number comes back doubled."""
    async with channel:
        for number in range(first, first + count):
            await channel.send(number)
            assert await channel.receive() == 2 * number
    return os.getpid()


async def serve(hub: Hub) -> set[int]:
    """Double every number; who asked."""
    pids = set()
    async for client, number in hub:
        pids.add(client.pid)
        await hub.send(client, 2 * number)
    return pids


async def cascade(hub: Hub, depth: int) -> set[int]:
    """Serve, while a process below serves, and ask it through a process beside it."""
    if depth:
        async with parallel.spawn(cascade, depth - 1) as (channel, process):
            asked = {await parallel.run(ask, channel, 0, 10)}
            await channel.aclose()
            assert await process.result() == asked
    return await serve(hub)


async def flood(channel: Channel) -> None:
    """Send numbers without end."""
    async with channel:
        number = 0
        while True:
            await channel.send(number)
            number += 1


async def count_messages(hub: Hub) -> int:
    """How many come until the loop ends."""
    return len([message async for message in hub])


async def say_much_and_vanish(hub: Hub) -> None:
    """Be killed as soon as everything has been flushed."""
    client, count = await anext(aiter(hub))
    for number in range(count):
        await hub.send(client, number)
    await hub.flushed()
    os.kill(os.getpid(), signal.SIGKILL)


async def say_much_and_return(hub: Hub) -> str:
    """Return as soon as the last message was accepted."""
    client, count = await anext(aiter(hub))
    for number in range(count):
        await hub.send(client, number)
    return "all said"


async def say_a_lot_and_return(hub: Hub, expected: int) -> str:
    """Answer the last of so many messages, with more than any buffer holds."""
    messages = aiter(hub)
    for _ in range(expected):
        client, message = await anext(messages)
        if message == "go":
            chosen = client
    hub.send_nowait(chosen, bytes(5_000_000))
    return "all said"


async def call(fn: Callable[..., Any], *args: Any) -> Any:
    """In a worker: run that in another one."""
    return await parallel.run(fn, *args)


async def say(channel: Channel, *values: object) -> None:
    """Send that through a channel, and close it."""
    async with channel:
        for value in values:
            await channel.send(value)


async def hand_back(channel: Channel) -> Channel:
    """The channel that was given."""
    return channel


def hand_back_sync(channel: Channel) -> Channel:
    """The same, without any event loop."""
    return channel


def converse_sync(channel: Channel, question: object) -> object:
    """Ask and wait for the answer, in an event loop of its own."""
    channel.send_nowait(question)
    try:
        return trio.run(channel.receive)
    finally:
        channel.close()


async def pass_on(hub: Hub) -> int:
    """Take channels, and use each once; how many."""
    count = 0
    async for _, channels in hub:
        for channel in channels:
            async with channel:
                await channel.send(("used by", os.getpid()))
                count += 1
    return count


async def return_to_sender(hub: Hub) -> None:
    """Send everything that comes back where it came from, and keep nothing."""
    async for client, channel in hub:
        async with channel:
            await hub.send(client, channel)


async def send_and_be_killed(over: Channel, cargo: Channel) -> None:
    """Send one channel over the other, and die as soon as that is accepted."""
    await over.send(cargo)
    os.kill(os.getpid(), signal.SIGKILL)


async def read_nothing_and_be_killed(hub: Hub) -> None:
    """Die when the first message has come, with the others unread."""
    await anext(aiter(hub))
    os.kill(os.getpid(), signal.SIGKILL)


async def hop(channel: Channel, depth: int) -> int:
    """Give the channel to a process below, and that on; the lowest uses it."""
    async with channel:
        if depth:
            return 1 + await parallel.run(hop, channel, depth - 1)
        await channel.send("from the lowest")
        return 1


async def come_home(hub: Hub) -> list[object]:
    """Take channels to this very hub and say something through each; what was heard."""
    heard = []
    async for _, value in hub:
        if isinstance(value, parallel.Channel):
            async with value:
                await value.send("home")
        else:
            heard.append(value)
    return heard


async def echo(hub: Hub) -> int:
    """Send everything back; how much that was."""
    count = 0
    async for client, message in hub:
        await hub.send(client, message)
        count += 1
    return count


async def fall(channel: Channel, depth: int) -> None:
    """A cascade that says when its lowest process runs, and, of each one, that it cleans up."""
    try:
        if depth:
            await parallel.run(fall, channel, depth - 1)
        else:
            await channel.send("the lowest runs")
            await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await say(channel, depth)


async def report_and_sleep(channel: Channel) -> None:
    """Say hello, then wait to be cancelled."""
    async with channel:
        await channel.send("hello")
        await trio.sleep_forever()


async def despite(hub: Hub, value: object) -> object:
    """Return that although it was cancelled; raise it if it is an exception."""
    client, _ = await anext(aiter(hub))
    await hub.send(client, "ready")
    try:
        await trio.sleep_forever()
    except trio.Cancelled:  # that is what it is for
        if isinstance(value, Exception):
            raise value from None
        return value


def ignore_in_a_loop(channel: Channel) -> None:
    """A sync function that ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.send_nowait("hello")
    channel.close()
    while True:
        pass


async def ignore_in_an_async_loop() -> None:
    while True:
        pass


async def ignore_behind_a_shield() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def ignore_in_c() -> None:
    """The regular expression engine holds the interpreter lock, and takes longer than we live."""
    re.match(r"(a+)+$", "a" * 60 + "b")


async def ignore_and_start_again() -> None:
    while True:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:  # that is what it is for
            with trio.CancelScope(shield=True):
                await parallel.run(ignore_behind_a_shield)


async def tell_and(channel: Channel, stubborn: Callable[[], Any]) -> Any:
    """Say hello, then be stubborn."""
    with trio.CancelScope(shield=True):
        await say(channel, "hello")
    return await stubborn()


def tell_and_sync(channel: Channel, stubborn: Callable[[], Any]) -> Any:
    """The same for a sync function."""
    channel.send_nowait("hello")
    channel.close()
    return stubborn()


async def clean_up_slowly(channel: Channel, below: Callable[[], Any], seconds: float) -> None:
    """When cancelled, take that long before cancelling the process below, which is stubborn."""
    scope = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_later, scope, seconds)
        with scope:
            await parallel.run(tell_and, channel, below)


async def cancel_later(scope: trio.CancelScope, seconds: float) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        scope.cancel()


async def fail_when_told(hub: Hub, error: BaseException) -> None:
    """Raise that when the first message comes."""
    async for _ in hub:
        raise error


def raise_a_bundle() -> None:
    """An exception with everything that can hang on one."""
    try:
        try:
            raise KeyError("the context")
        except KeyError:
            raise ValueError("the cause")  # noqa: B904  # its context is wanted
    except ValueError as exc:
        group = ExceptionGroup("both", [TypeError("one"), OSError(2, "two")])
        group.add_note("a note")
        group.exceptions[0].add_note("a note of its own")
        raise group from exc


def grown(before: int) -> int:
    """By how many bytes memory has grown at most since `memory_now` gave that."""
    return memory("VmHWM") - before


def memory_now() -> int:
    """Bytes of this process in memory; the highest so far is forgotten."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return memory("VmRSS")


def memory(which: str) -> int:
    """Bytes of this process in memory: VmRSS, now, or VmHWM, at most so far."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(which + ":"):
                return int(line.split()[1]) * 1024
    raise LookupError(which)


async def count_in_bounds(hub: Hub) -> tuple[int, int]:
    """Check that numbers come in order; how many, and by how many bytes memory grew at most."""
    before, expected = memory_now(), 0
    async for client, number in hub:
        if number == "wait":  # and let them come until they cannot
            await hub.send(client, "go on")
            await trio.sleep(0.2)
            continue
        assert number == expected
        expected += 1
    return expected, grown(before)


async def send_in_bounds(channel: Channel, count: int) -> int:
    """Send so many numbers; by how many bytes memory grew at most."""
    before = memory_now()
    async with channel:
        await channel.send("wait")
        assert await channel.receive() == "go on"
        for number in range(count):
            await channel.send(number)
    return grown(before)


async def take_one_in_bounds(hub: Hub) -> tuple[int, int]:
    """The size of the only message, and by how many bytes memory grew at most."""
    before = memory_now()
    _, message = await anext(aiter(hub))
    size = message.nbytes if hasattr(message, "nbytes") else len(message)
    assert message[-1] == message[size // 2] == 7
    return size, grown(before)


async def send_one_in_bounds(channel: Channel, kind: str, size: int) -> int:
    """Send a message of so many bytes; by how many bytes more memory grew at most."""
    message: Any = b"\7" * size
    if kind == "array":
        import numpy

        message = numpy.full(size, 7, numpy.uint8)
    before = memory_now()
    async with channel:
        await channel.send(message)
    return grown(before)


async def subscribe(channel: Channel) -> list[object]:
    """Say so, and take everything that comes; the sizes of bytes, and the rest as it is."""
    async with channel:
        await channel.send("here")
        return [len(message) if type(message) is bytes else message async for message in channel]


async def subscribe_many(channel: Channel, count: int) -> list[int]:
    """So many subscribers in one process, who acknowledge each message; how many each took."""
    taken = []

    async def take(clone: Channel) -> None:
        got = 0
        async with clone:
            await clone.send("here")
            async for message in clone:
                if message != "the end":
                    await clone.send("got it")
                    got += 1
        taken.append(got)

    async with channel, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(take, channel.clone())
    return taken


async def subscribe_and_sleep(channel: Channel) -> None:
    """Say so, and take nothing."""
    async with channel:
        await channel.send("here")
        await trio.sleep_forever()


async def publish(
    hub: Hub, subscribers: int, slow: Any, messages: list[object], acknowledge: int = 0
) -> tuple[int, int]:
    """Broadcast to so many and return: how many that reached, and by how much memory grew."""
    messages_in = aiter(hub)
    for _ in range(subscribers):
        assert (await anext(messages_in))[1] == "here"
    before, reached = memory_now(), 0
    for message in messages:
        reached += await hub.broadcast(message, slow=slow)
        for _ in range(acknowledge):
            assert (await anext(messages_in))[1] == "got it"
    await hub.broadcast("the end", slow=slow)
    return reached, grown(before)


async def talk_and_raise(channel: Channel) -> None:
    await talk_and("raise", channel)
