"""`failure`: an exception arrives as what it was, with all that hangs on it; or as its text."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import cloudpickle
import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import parallel
from parallel import RemoteError
from parallel._wire.failure import as_remote_error, decode_failure, encode_failure

from .support import examples


def travel(exc: BaseException, skip: int = 0) -> Any:
    """As from a worker to its caller."""
    return decode_failure(encode_failure(exc, skip))


def raised(raise_it: Callable[[], object]) -> BaseException:
    """What it raises, with its traceback."""
    try:
        raise_it()
    except BaseException as exc:
        return exc
    raise AssertionError("it raised nothing")


def printed(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc))


# Types of every kind


class TwoArguments(Exception):
    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.first, self.second = first, second


class KeywordOnly(Exception):
    def __init__(self, *, code: int, why: str = "because") -> None:
        super().__init__(why)
        self.code = code


class ChangesArgs(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name.upper(), len(name))


class NoSuperInit(Exception):
    def __init__(self, a: int, b: int) -> None:
        self.sum = a + b


class CountsItsInits(Exception):
    inits = 0

    def __init__(self, text: str) -> None:
        type(self).inits += 1
        super().__init__(text)


class OwnReduce(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}-{b}")
        self.a, self.b = a, b

    def __reduce__(self) -> tuple[Any, ...]:
        return OwnReduce, (self.a, self.b)


class OwnReduceEx(Exception):
    def __init__(self, a: int) -> None:
        self.a = a

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return OwnReduceEx, (self.a,)


class OwnSetState(Exception):
    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self.restored = True


class OwnNew(Exception):
    def __new__(cls, a: int, b: int) -> OwnNew:
        self = super().__new__(cls, a, b)
        self.product = a * b
        return self

    product: int

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code


class SlottedMore(Slotted):
    __slots__ = ("__private", "unset")

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.__private = code + 1
        self.name = "in its dict"

    def private(self) -> int:
        return self.__private


@dataclasses.dataclass
class WithFields(Exception):
    code: int
    why: str = "because"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    code: int


class HttpError(OSError):
    def __init__(self, url: str) -> None:
        super().__init__(errno.ECONNREFUSED, f"no answer from {url}")
        self.url = url


class JsonError(ValueError):
    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message)
        self.line = line

    def __str__(self) -> str:
        return f"{self.args[0]} in line {self.line}"


class Multiple(KeyError, AttributeError):
    pass


def undecodable() -> NoReturn:
    b"ab\xff".decode()
    raise AssertionError


def missing_attribute() -> object:
    return TwoArguments("a", 1).nothing  # type: ignore[attr-defined]


def missing_module() -> None:
    import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401


def failing_program() -> None:
    subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)


EXCEPTIONS: list[BaseException] = [
    Exception(),
    ValueError("text"),
    ValueError("text", 2, None, ["three"]),
    KeyError("key"),
    IndexError(3),
    StopIteration(4),
    StopAsyncIteration(),
    GeneratorExit("x"),
    SystemExit(5),
    KeyboardInterrupt(),
    TwoArguments("a", 1),
    KeywordOnly(code=7),
    ChangesArgs("name"),
    NoSuperInit(1, 2),
    CountsItsInits("text"),
    OwnReduce(1, 2),
    OwnReduceEx(3),
    OwnNew(2, 3),
    HttpError("there"),
    WithFields(3),
    Frozen(4),
    JsonError("a comma", line=4),
    Multiple("x"),
    OSError("only text"),
    OSError(errno.ENOENT, "No such file", "name"),
    OSError(errno.EXDEV, "Cross-device", "from", None, "to"),
    FileNotFoundError(errno.ENOENT, "No such file", b"name"),
    PermissionError(errno.EACCES, "no"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError(),
    raised(lambda: open("/nowhere/at/all")),
    raised(undecodable),
    UnicodeEncodeError("ascii", "\xe4", 0, 1, "ordinal"),
    UnicodeTranslateError("text", 0, 2, "why"),
    raised(missing_module),
    ImportError("text", name="module", path="/there"),
    raised(lambda: [].pop()),
    raised(lambda: 1 / 0),
    raised(lambda: exec("a = (")),
    raised(failing_program),
    raised(lambda: json.loads("{")),
    subprocess.TimeoutExpired(["sleep"], 3.0, b"out", b"err"),
    asyncio.CancelledError("x"),
    trio.BrokenResourceError("gone"),
    trio.ClosedResourceError(),
    trio.EndOfChannel(),
    np.linalg.LinAlgError("Singular matrix"),
    cloudpickle.pickle.PicklingError("no"),
]


def kind(exc: BaseException) -> str:
    return type(exc).__name__


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=kind)
def test_an_exception_of_any_kind_arrives_as_it_was(exc: BaseException) -> None:
    arrived = travel(exc)
    assert type(arrived) is type(exc)
    assert arrived.args == exc.args
    assert str(arrived) == str(exc)
    assert repr(arrived) == repr(exc)
    assert vars(arrived) == vars(exc)
    for name in ("errno", "filename", "filename2", "start", "end", "reason", "code", "value"):
        assert getattr(arrived, name, None) == getattr(exc, name, None)


def test_no_init_of_the_user_s_runs_on_the_way() -> None:
    exc = CountsItsInits("text")
    before = CountsItsInits.inits
    travel(exc)
    assert CountsItsInits.inits == before


def test_attributes_that_were_set_later_arrive() -> None:
    exc = ValueError("text")
    exc.code = {"a": [1, 2]}  # type: ignore[attr-defined]
    assert travel(exc).code == {"a": [1, 2]}


def test_attributes_in_slots_arrive() -> None:
    arrived = travel(Slotted(3))
    assert (type(arrived), arrived.code, str(arrived)) == (Slotted, 3, "slotted")
    more = travel(SlottedMore(4))
    assert (more.code, more.private(), more.name) == (4, 5, "in its dict")
    assert not hasattr(more, "unset")


def test_attributes_of_a_frozen_class_arrive() -> None:
    exc = Frozen(3)
    cause = FrozenSlots(4)
    object.__setattr__(exc, "__cause__", cause)
    arrived = travel(exc)
    assert (type(arrived), arrived.code) == (Frozen, 3)
    assert (type(arrived.__cause__), arrived.__cause__.code) == (FrozenSlots, 4)


def test_a_setstate_of_its_own_is_used() -> None:
    exc = OwnSetState("text")
    exc.code = 1  # type: ignore[attr-defined]
    arrived = travel(exc)
    assert (arrived.code, arrived.restored, str(arrived)) == (1, True, "text")


def test_the_name_that_was_missing_arrives() -> None:
    arrived = travel(raised(missing_module))
    assert arrived.name == "no_such_module_anywhere"
    assert "nothing" in str(travel(raised(missing_attribute)))


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_an_array_in_an_exception_arrives_whatever_its_size(size: int) -> None:
    exc = ValueError("text")
    exc.data = np.arange(size)  # type: ignore[attr-defined]
    arrived = travel(exc)
    assert type(arrived) is ValueError
    assert np.array_equal(arrived.data, np.arange(size))


def test_an_exception_class_defined_in_a_function_arrives_as_that_class() -> None:
    class Local(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a + b)
            self.a = a

    arrived = travel(Local(1, 2))
    assert type(arrived) is Local
    assert (arrived.args, arrived.a) == ((3,), 1)


@examples(100)
@given(
    st.sampled_from([ValueError, KeyError, OSError, RuntimeError, TwoArguments.__base__]),
    st.lists(st.one_of(st.integers(), st.text(), st.none(), st.binary()), max_size=4),
    st.lists(st.text(max_size=10), max_size=3),
)
def test_any_arguments_and_notes_arrive(
    cls: type[Exception], args: list[object], notes: list[str]
) -> None:
    exc = cls(*args)
    for note in notes:
        exc.add_note(note)
    arrived = travel(exc)
    assert (type(arrived), arrived.args) == (type(exc), exc.args)
    assert getattr(arrived, "__notes__", []) == notes


# What cannot travel


class HasLock(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


class FailsToArrive(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return fail, ()


def fail() -> NoReturn:
    raise SystemExit("not here")


class BecomesSomethingElse(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return str, ("not an exception",)


class FailsToReduce(Exception):
    def __reduce__(self) -> NoReturn:
        raise SystemExit("never")


class PickyNew(Exception):
    def __new__(cls, *args: object) -> PickyNew:
        if args != ("right",):
            raise SystemExit("wrong")
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        super().__init__("other")


def raise_it(exc: BaseException) -> NoReturn:
    raise exc


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (HasLock(), "has a lock"),
        (FailsToArrive("text"), "text"),
        (BecomesSomethingElse("text"), "text"),
        (FailsToReduce("text"), "text"),
        (PickyNew("right"), "other"),
        (ValueError(threading.Lock()), "_thread.lock"),
    ],
    ids=kind,
)
def test_what_cannot_travel_arrives_as_its_name_text_and_traceback(
    exc: BaseException, text: str
) -> None:
    arrived = travel(raised(lambda: raise_it(exc)))
    assert type(arrived) is RemoteError
    assert arrived.type_name == type(exc).__name__
    assert text in arrived.text
    assert "in raise_it" in arrived.traceback
    assert arrived.traceback in str(arrived)


def test_the_qualified_name_of_a_local_class_is_kept() -> None:
    class Local(Exception):
        lock = threading.Lock()

    name = "test_the_qualified_name_of_a_local_class_is_kept.<locals>.Local"
    assert travel(Local("text")).type_name == name


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class MuteWithLock(Mute):
    def __init__(self) -> None:
        self.lock = threading.Lock()


class StopsThePrinter(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class NotText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


def test_a_str_that_raises_is_no_hindrance() -> None:
    for cls in (Mute, StopsThePrinter, NotText):
        assert type(travel(raised(lambda cls=cls: raise_it(cls("x"))))) is cls
    arrived = travel(raised(lambda: raise_it(MuteWithLock())))
    assert (arrived.type_name, type(arrived)) == ("MuteWithLock", RemoteError)
    assert "raised ValueError" in arrived.text
    assert as_remote_error(StopsThePrinter()).type_name == "StopsThePrinter"


@pytest.mark.parametrize("notes", [None, 5, "text", ["fine", 3], [Mute()], ("a", "b")])
def test_notes_that_are_none_are_no_hindrance(notes: object) -> None:
    exc = ValueError("text")
    exc.__notes__ = notes  # type: ignore[assignment]
    arrived = travel(exc)
    assert type(arrived) is ValueError
    assert printed(arrived)


# Tracebacks


def outer(depth: int) -> None:
    inner(depth)


def inner(depth: int) -> None:
    if depth:
        outer(depth - 1)
    raise TwoArguments("deep", depth)


def test_the_remote_traceback_is_visible_when_it_is_printed() -> None:
    exc = raised(lambda: outer(2))
    arrived = travel(exc)
    assert words(printed(arrived)) == words(printed(exc))
    assert "raise TwoArguments" in printed(arrived)


def words(text: str) -> list[str]:
    """Without the marks below the lines: columns do not travel."""
    return text.replace("^", "").replace("~", "").split()


def test_frames_can_be_left_out() -> None:
    arrived = travel(raised(lambda: outer(0)), skip=2)
    frames = traceback.extract_tb(arrived.__traceback__)
    assert [frame.name for frame in frames] == ["outer", "inner"]


def test_at_least_the_last_frame_stays() -> None:
    arrived = travel(raised(lambda: outer(0)), skip=100)
    assert [frame.name for frame in traceback.extract_tb(arrived.__traceback__)] == ["inner"]


def test_raised_again_the_traceback_grows_by_the_place_where() -> None:
    arrived = travel(raised(lambda: outer(0)))
    again = raised(lambda: raise_it(arrived))
    names = [frame.name for frame in traceback.extract_tb(again.__traceback__)]
    assert names[-2:] == ["outer", "inner"]
    assert "raise_it" in names


def test_without_a_traceback_there_is_none() -> None:
    assert travel(ValueError("text")).__traceback__ is None


def recurse() -> None:
    recurse()


def test_a_recursion_error_arrives_with_its_whole_traceback() -> None:
    exc = raised(recurse)
    arrived = travel(exc)
    assert type(arrived) is RecursionError
    ours = traceback.extract_tb(exc.__traceback__)
    theirs = traceback.extract_tb(arrived.__traceback__)
    assert [frame.name for frame in theirs] == [frame.name for frame in ours]
    assert "recurse" in printed(arrived)


def test_a_traceback_through_generated_code_arrives() -> None:
    arrived = travel(raised(lambda: exec("def f():\n  g()\ndef g():\n  1/0\nf()", {})))
    assert [frame.name for frame in traceback.extract_tb(arrived.__traceback__)][-2:] == ["f", "g"]


# Causes, contexts, groups


def chained() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as exc:
            raise ValueError("second") from exc
    except ValueError:
        raise TwoArguments("third", 3)  # noqa: B904


def test_causes_and_contexts_arrive_with_their_tracebacks() -> None:
    arrived = travel(raised(chained))
    context = arrived.__context__
    assert type(context) is ValueError
    assert type(context.__cause__) is KeyError
    assert context.__cause__ is context.__context__
    assert context.__suppress_context__
    assert not arrived.__suppress_context__
    text = printed(arrived)
    assert text.count("chained") >= 3
    assert "direct cause" in text
    assert "During handling" in text


def test_from_none_stays_so() -> None:
    def suppress() -> None:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("seen") from None

    arrived = travel(raised(suppress))
    assert arrived.__suppress_context__
    assert arrived.__cause__ is None
    assert type(arrived.__context__) is KeyError
    assert "hidden" not in printed(arrived)


def test_a_cause_that_ends_processes_is_only_a_cause() -> None:
    exc = ValueError("text")
    exc.__cause__ = SystemExit(3)
    arrived = travel(exc)
    assert type(arrived.__cause__) is SystemExit
    assert arrived.__cause__.code == 3


def test_a_cause_that_cannot_travel_is_text_and_the_rest_as_it_was() -> None:
    exc = TwoArguments("a", 1)
    exc.__cause__ = HasLock()
    exc.__cause__.__context__ = KeyError("deep")
    arrived = travel(exc)
    assert type(arrived) is TwoArguments
    assert type(arrived.__cause__) is RemoteError
    assert arrived.__cause__.type_name == "HasLock"
    assert type(arrived.__cause__.__context__) is KeyError


def test_circles_of_contexts_arrive_as_circles() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    arrived = travel(first)
    assert type(arrived.__context__) is KeyError
    assert arrived.__context__.__context__ is arrived
    own = ValueError("own cause")
    own.__cause__ = own
    assert (arrived := travel(own)).__cause__ is arrived


def test_a_chain_of_ten_thousand_causes_arrives() -> None:
    exc = last = ValueError(0)
    for number in range(1, 10_000):
        last.__cause__ = last = ValueError(number)
    arrived: BaseException | None = travel(exc)
    for number in range(10_000):
        assert arrived is not None
        assert arrived.args == (number,)
        arrived = arrived.__cause__


def test_groups_arrive_with_their_members_notes_and_tracebacks() -> None:
    exc = ExceptionGroup(
        "outer",
        [
            ExceptionGroup("inner", [raised(lambda: outer(0)), KeyError("k")]),  # type: ignore[list-item]
            HasLock(),
        ],
    )
    exc.add_note("a note")
    exc.exceptions[0].add_note("another")
    exc.code = 5  # type: ignore[attr-defined]
    arrived = travel(raised(lambda: raise_it(exc)))
    assert type(arrived) is ExceptionGroup
    assert (arrived.message, arrived.code, arrived.__notes__) == ("outer", 5, ["a note"])
    inner, remote = arrived.exceptions
    assert (type(inner), inner.message, inner.__notes__) == (ExceptionGroup, "inner", ["another"])
    assert [type(member) for member in inner.exceptions] == [TwoArguments, KeyError]
    assert inner.exceptions[0].__traceback__ is not None
    assert (type(remote), remote.type_name) == (RemoteError, "HasLock")
    assert "raise TwoArguments" in printed(arrived)


class Bunch(ExceptionGroup[Exception]):
    """A group of one's own."""


class BunchWithInit(ExceptionGroup[Exception]):
    def __new__(cls, *args: Any) -> BunchWithInit:
        return super().__new__(cls, "a bunch", args[-1])

    def __init__(self, code: int, members: list[Exception]) -> None:
        self.code = code


def test_groups_of_one_s_own_class_arrive() -> None:
    arrived = travel(Bunch("text", [KeyError("k")]))
    assert (type(arrived), arrived.message) == (Bunch, "text")
    arrived = travel(BunchWithInit(3, [KeyError("k")]))
    assert (type(arrived), arrived.code) == (BunchWithInit, 3)
    assert [type(member) for member in arrived.exceptions] == [KeyError]


def test_a_member_in_two_places_stays_one() -> None:
    member = KeyError("k")
    exc = ExceptionGroup("text", [member, ExceptionGroup("inner", [member])])
    exc.__cause__ = member
    arrived = travel(exc)
    assert arrived.exceptions[0] is arrived.exceptions[1].exceptions[0] is arrived.__cause__


@st.composite
def graphs(draw: st.DrawFn) -> list[Exception]:
    """Exceptions that hang together in any way; a group can only have those before it."""
    made: list[Exception] = []
    for index in range(draw(st.integers(1, 8))):
        members = draw(st.lists(st.sampled_from(made), max_size=3)) if made else []
        exc = ExceptionGroup(f"group {index}", members) if members else ValueError(index)
        made.append(HasLock() if draw(st.integers(0, 5)) == 0 else exc)
    for exc in made:
        exc.__cause__ = draw(st.none() | st.sampled_from(made))
        exc.__context__ = draw(st.none() | st.sampled_from(made))
        exc.__suppress_context__ = draw(st.booleans())
    return made


def parts(exc: BaseException) -> list[BaseException | None]:
    members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    return [exc.__cause__, exc.__context__, *members]


@examples(200)
@given(graphs())
def test_whatever_hangs_together_arrives_hanging_together(made: list[Exception]) -> None:
    arrived = {id(made[-1]): travel(made[-1])}
    waiting: list[BaseException] = [made[-1]]
    while waiting:
        ours = waiting.pop()
        theirs = arrived[id(ours)]
        assert str(theirs) == str(ours) or isinstance(theirs, RemoteError)
        assert type(theirs) is (RemoteError if isinstance(ours, HasLock) else type(ours))
        assert theirs.__suppress_context__ == ours.__suppress_context__
        for our_part, their_part in zip(parts(ours), parts(theirs), strict=True):
            if our_part is not None and id(our_part) not in arrived:
                arrived[id(our_part)] = their_part
                waiting.append(our_part)
            assert their_part is (None if our_part is None else arrived[id(our_part)])


async def cancelled() -> trio.Cancelled:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            caught = exc
            raise
    return caught


async def test_trio_s_cancelled_stays_where_it_means_something() -> None:
    exc = BaseExceptionGroup("text", [await cancelled(), ValueError("v"), await cancelled()])
    exc.__context__ = await cancelled()
    exc.__cause__ = await cancelled()
    arrived = travel(exc)
    assert type(arrived) is ExceptionGroup
    assert [type(member) for member in arrived.exceptions] == [ValueError]
    assert arrived.__context__ is None
    assert arrived.__cause__ is None
    alone = travel(BaseExceptionGroup("text", [await cancelled()]))
    assert (type(alone), alone.type_name) == (RemoteError, "BaseExceptionGroup")


def test_groups_nested_far_too_deep_still_arrive_as_something() -> None:
    exc: Exception = ValueError("the innermost")
    for _ in range(5000):
        exc = ExceptionGroup("text", [exc])
    arrived = travel(exc)
    assert isinstance(arrived, ExceptionGroup | RemoteError)


def test_bytes_that_are_no_exception_are_a_remote_error() -> None:
    with pytest.raises(RemoteError, match="an exception could not be unpickled here"):
        decode_failure(b"garbage")


# Through the front door


def raise_mute() -> None:
    raise Mute("x")


def raise_lock() -> None:
    raise HasLock


def raise_frozen() -> None:
    raise Frozen(3)


def stop_iteration() -> None:
    raise StopIteration(3)


def local_class() -> None:
    class Local(ValueError):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a, b)

    raise Local(1, 2)


def mixed_group() -> None:
    raise BaseExceptionGroup("text", [ValueError("v"), SystemExit(3)])


@pytest.mark.slow
async def test_a_worker_s_exception_arrives_as_its_own_type(tree: None) -> None:
    async with trio.open_nursery() as nursery:
        for function, args, cls in (
            (outer, (3,), TwoArguments),
            (recurse, (), RecursionError),
            (raise_mute, (), Mute),
            (raise_frozen, (), Frozen),
            (stop_iteration, (), RuntimeError),  # as Python has it for coroutines
            (chained, (), TwoArguments),
            (raise_lock, (), RemoteError),
            (local_class, (), ValueError),
            (mixed_group, (), parallel.WorkerDied),
        ):
            nursery.start_soon(expect, function, args, cls)


async def expect(
    function: Callable[..., object], args: tuple[object, ...], cls: type[BaseException]
) -> None:
    with pytest.raises(cls) as caught:
        await parallel.run(function, *args)
    assert isinstance(caught.value, cls)
    if cls not in (RuntimeError, RemoteError, parallel.WorkerDied):
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert function.__name__ in names
        assert not any("_host" in frame for frame in printed(caught.value).splitlines())
