"""`_pipes`: descriptors as streams, over pipes of this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from parallel._pipes import PipeReceiveStream, PipeSendStream


@asynccontextmanager
async def piped() -> AsyncIterator[tuple[PipeSendStream, PipeReceiveStream]]:
    reading, writing = os.pipe()
    async with PipeSendStream(writing) as send, PipeReceiveStream(reading) as receive:
        yield send, receive


async def test_they_are_streams_as_trio_understands_them() -> None:
    async def make() -> tuple[PipeSendStream, PipeReceiveStream]:
        reading, writing = os.pipe()
        return PipeSendStream(writing), PipeReceiveStream(reading)

    async def make_clogged() -> tuple[PipeSendStream, PipeReceiveStream]:
        send, receive = await make()
        while send.send_nowait(bytes(1 << 16)):
            pass
        return send, receive

    await trio.testing.check_one_way_stream(make, make_clogged)


async def test_what_is_sent_either_way_arrives_in_order_until_the_end() -> None:
    async with piped() as (send, receive):
        assert send.send_nowait(b"now ") == 4
        await send.send_all(memoryview(b"later"))
        assert await receive.receive_some(2) == b"no"
        assert await receive.receive_some() == b"w later"
        await send.aclose()
        assert await receive.receive_some() == b""


async def test_a_full_pipe_takes_a_part_and_then_nothing() -> None:
    async with piped() as (send, receive):
        data = bytes(1 << 21)
        taken = send.send_nowait(data)
        assert 0 < taken < len(data)
        assert send.send_nowait(data) == 0
        while taken:
            taken -= len(await receive.receive_some())
        await send.wait_send_all_might_not_block()
        assert send.send_nowait(b"again") == 5


async def test_a_pipe_that_nobody_reads_takes_nothing_and_sending_says_why() -> None:
    async with piped() as (send, receive):
        await receive.aclose()
        assert send.send_nowait(b"x") == 0
        with pytest.raises(trio.BrokenResourceError):
            await send.send_all(b"x")


async def test_closed_streams_say_so() -> None:
    async with piped() as (send, receive):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await receive.receive_some()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await receive.aclose()
        await wait()
        await send.aclose()
        assert send.send_nowait(b"x") == 0
