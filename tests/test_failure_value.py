"""`parallel.Failure`: an exception that travels whole."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

import parallel


class Picky(Exception):
    """Does not survive pickling by itself."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


def fail() -> None:
    try:
        raise KeyError("first")
    except KeyError as exc:
        exc.add_note("a note")
        raise LookupError("second") from exc


def failure() -> parallel.Failure:
    try:
        fail()
    except LookupError as exc:
        return parallel.Failure(exc)
    raise AssertionError


def test_it_keeps_traceback_cause_and_notes() -> None:
    arrived = pickle.loads(pickle.dumps(failure()))
    with pytest.raises(LookupError, match="second") as caught:
        arrived.reraise()
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError) and cause.__notes__ == ["a note"]
    assert "in fail" in "".join(traceback.format_exception(caught.value))


def test_unsent_it_holds_the_exception_itself() -> None:
    error = LookupError("as it is")
    held = parallel.Failure(error)
    assert held.exception is error
    assert repr(held) == "Failure(LookupError('as it is'))"
    with pytest.raises(LookupError) as caught:
        held.reraise()
    assert caught.value is error


def test_it_can_be_copied() -> None:
    assert isinstance(copy.deepcopy(failure()).exception, LookupError)


async def bring(hub: parallel.Hub[object, parallel.Failure]) -> parallel.Failure:
    async for client, _ in hub:
        await hub.send(client, parallel.Failure(Picky("one", "another")))
        break
    return failure()


async def test_it_travels_in_messages_and_results(tree: None) -> None:
    async with parallel.spawn(bring) as (channel, process):
        await channel.send(None)
        got = await channel.receive()
        assert "one in another" in str(got.exception)
    assert isinstance((await process.result()).exception, LookupError)


async def test_groups_arrive_as_groups(tree: None) -> None:
    def group() -> parallel.Failure:
        return parallel.Failure(ExceptionGroup("both", [LookupError("a"), KeyError("b")]))

    arrived = (await parallel.run(group)).exception
    assert isinstance(arrived, ExceptionGroup)
    assert [type(each) for each in arrived.exceptions] == [LookupError, KeyError]
