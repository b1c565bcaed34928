"""`codec`: what can be pickled arrives, by C pickle or by value; what cannot is one error."""

from __future__ import annotations

import array
import copy
import dataclasses
import enum
import functools
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import MessageTooLarge, NotSendable, RemoteError
from parallel._wire import codec
from parallel._wire.codec import IN_BAND, Packed, arrive, claim, pack, unpack
from parallel._wire.frames import READ_SIZE, FrameReader, Kind, encode

from .support import examples

LARGE = 1 << 21


def travel(value: Any) -> Any:
    """As through a connection: packed, framed, cut, read into new memory, unpacked."""
    packed = pack(value)
    sizes = [len(buffer) for buffer in packed.buffers]
    stream = b"".join([encode(Kind.MESSAGE, packed.body, sizes), *packed.buffers])
    reader = FrameReader()
    position = 0
    while (frame := reader.next()) is None:
        target = reader.target
        if target is not None:
            target[:] = stream[position : position + len(target)]
            position += len(target)
            reader.filled(len(target))
        else:
            reader.feed(stream[position : position + READ_SIZE])
            position += READ_SIZE
    return unpack(frame.body, frame.buffers)


@pytest.fixture
def by_c_pickle_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("cloudpickle was asked")

    monkeypatch.setattr(codec.cloudpickle, "dumps", refuse)


# Values


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass(slots=True)
class Record:
    name: str
    values: list[float]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(),
    st.just(Colour.RED),
    st.builds(Point, st.integers(), st.integers()),
    st.builds(Record, st.text(max_size=5), st.lists(st.floats(allow_nan=False), max_size=3)),
    st.datetimes(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.just("__main__"),
)
keys = st.one_of(st.integers(), st.text(max_size=10), st.binary(max_size=10))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(keys, inner, max_size=5),
        st.frozensets(keys, max_size=5),
        st.sets(keys, max_size=5),
    ),
    max_leaves=30,
)


@examples(300)
@given(values)
def test_any_plain_value_arrives_equal(value: object) -> None:
    arrived = travel(value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        1,
        "text",
        b"bytes",
        None,
        2.5,
        [1, {"a": (2, 3)}],
        Point(1, 2),
        Colour.RED,
        os.getpid,
        Record,
    ],
    ids=repr,
)
@pytest.mark.usefixtures("by_c_pickle_alone")
def test_what_c_pickle_can_do_it_does_alone(value: object) -> None:
    assert pack(value).body == pickle.dumps(value, 5)
    assert travel(value) == value


def test_the_text_main_is_no_harm() -> None:
    for value in ("__main__", ["__main__"], {"__main__": b"__main__"}):
        assert travel(value) == value


def test_what_a_value_was_when_it_was_packed_arrives() -> None:
    value = [1, 2]
    packed = pack(value)
    value.append(3)
    assert unpack(packed.body) == [1, 2]


def test_a_value_that_holds_itself_arrives() -> None:
    value: list[object] = [1]
    value.append(value)
    arrived = travel(value)
    assert arrived[1] is arrived


def test_a_list_with_a_million_members_arrives() -> None:
    assert travel(list(range(1_000_000))) == list(range(1_000_000))


# Functions and classes by value


def module_function(value: int) -> int:
    return value + 1


def make_adder(amount: int) -> Callable[[int], int]:
    def add(value: int) -> int:
        return value + amount

    return add


def make_factorial() -> Callable[[int], int]:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    return factorial


def make_counter_class() -> Any:
    class Counter:
        step = 2

        def __init__(self) -> None:
            self.count = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Counter) and other.count == self.count

        __hash__ = None  # type: ignore[assignment]

        def up(self) -> int:
            self.count += self.step
            return self.count

        @classmethod
        def make(cls) -> Counter:
            return cls()

        @staticmethod
        def name() -> str:
            return "counter"

    return Counter


def test_a_module_s_function_arrives_as_itself() -> None:
    assert travel(module_function) is module_function


@pytest.mark.parametrize(
    ("function", "args", "value"),
    [
        (lambda: 5, (), 5),
        (lambda a, b=2, *c, d=4, **e: (a, b, c, d, e), (1,), (1, 2, (), 4, {})),
        (make_adder(10), (1,), 11),
        (make_factorial(), (10,), 3628800),
        (functools.partial(make_adder(10), 5), (), 15),
        (functools.partial(functools.partial(max, 3), 7), (5,), 7),
        (functools.partial(int, base=16), ("ff",), 255),
        ([3, 1, 2].index, (1,), 1),
        ("a-b".split, ("-",), ["a", "b"]),
        (str.upper, ("a",), "A"),
        (len, ("abc",), 3),
        (make_counter_class()().up, (), 2),
        (make_counter_class().name, (), "counter"),
        (functools.reduce, (lambda a, b: a * b, [1, 2, 3, 4]), 24),
        (Point, (1, 2), Point(1, 2)),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_functions_of_every_kind_arrive(
    function: Callable[..., Any], args: tuple[Any, ...], value: object
) -> None:
    arrived, arrived_args = travel((function, args))
    assert arrived(*arrived_args) == value


async def test_an_async_function_arrives() -> None:
    amount = 3

    async def work(value: int) -> int:
        return value * amount

    assert await travel(work)(4) == 12


def test_a_generator_function_arrives() -> None:
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    assert list(travel(count)(3)) == [0, 1, 2]


def test_a_local_class_arrives_with_its_methods_and_stays_itself() -> None:
    counter_class = make_counter_class()
    counter = counter_class()
    counter.up()
    arrived = travel(counter)
    assert isinstance(arrived, counter_class)
    assert arrived == counter
    assert arrived.up() == 4
    assert arrived.make().count == 0


def test_a_module_registered_for_it_travels_by_value() -> None:
    module = types.ModuleType("only_here")
    exec("def f(): return helper() + 1\ndef helper(): return 41", module.__dict__)
    sys.modules["only_here"] = module
    try:
        cloudpickle.register_pickle_by_value(module)
        packed = pack(module.__dict__["f"])
        cloudpickle.unregister_pickle_by_value(module)
    finally:
        del sys.modules["only_here"]
    assert unpack(packed.body)() == 42


# Arrays


def sample(size: int, dtype: Any = np.float64) -> Any:
    return (np.arange(size) % 120).astype(dtype)


DTYPES = ["f8", "f4", "i8", "u1", "?", "c16", "M8[s]", "S3", "U3", [("a", "f8"), ("b", "i4")]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 100, LARGE // 8])
def test_arrays_of_every_kind_arrive_equal_and_writable(dtype: Any, size: int) -> None:
    sent = (
        np.zeros(size, dtype)
        if isinstance(dtype, list) or dtype == "M8[s]"
        else sample(size, dtype)
    )
    arrived = travel(sent)
    assert arrived.dtype == sent.dtype
    assert arrived.shape == sent.shape
    assert np.array_equal(arrived, sent)
    assert arrived.flags.writeable
    arrived[:] = arrived[::-1].copy()


def test_large_buffers_stay_out_of_the_pickle() -> None:
    sent = sample(LARGE)
    packed = pack({"a": sent, "b": sent[:10].copy()})
    assert len(packed.body) < 1000
    assert [len(buffer) for buffer in packed.buffers] == [sent.nbytes]
    assert packed.size == len(packed.body) + sent.nbytes


def test_packing_a_large_array_copies_nothing() -> None:
    sent = sample(LARGE)
    (buffer,) = pack(sent).buffers
    assert np.shares_memory(np.frombuffer(buffer, np.float64), sent)


@pytest.mark.parametrize("size", [IN_BAND - 1, IN_BAND])
def test_small_buffers_lie_in_the_pickle(size: int) -> None:
    packed = pack(np.zeros(size, np.uint8))
    assert len(packed.buffers) == (size >= IN_BAND)


@pytest.mark.parametrize("size", [10, 1000])
def test_fortran_order_is_kept(size: int) -> None:
    sent = np.asfortranarray(sample(size * size).reshape(size, size))
    arrived = travel(sent)
    assert arrived.flags.f_contiguous
    assert not arrived.flags.c_contiguous
    assert arrived.flags.writeable
    assert np.array_equal(arrived, sent)


@pytest.mark.parametrize(
    "sent",
    [
        sample(LARGE)[::2],
        sample(LARGE)[::-1],
        sample(10_000).reshape(10, 10, 100).transpose(2, 0, 1),
        sample(1_000_000).reshape(1000, 1000)[10:500, 3:700],
    ],
    ids=["step", "backwards", "transposed", "window"],
)
def test_arrays_with_gaps_arrive_equal_and_writable(sent: Any) -> None:
    arrived = travel(sent)
    assert np.array_equal(arrived, sent)
    assert arrived.flags.writeable


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_read_only_array_arrives_read_only(size: int) -> None:
    sent = sample(size)
    sent.flags.writeable = False
    arrived = travel(sent)
    assert np.array_equal(arrived, sent)
    assert not arrived.flags.writeable


def test_one_array_in_many_places_is_one_buffer_and_one_array() -> None:
    sent = sample(LARGE)
    assert len(pack([sent, sent]).buffers) == 1
    first, second = travel([sent, sent])
    first[0] = -1
    assert second[0] == -1


def test_arrays_of_objects_arrive() -> None:
    sent = np.array([1, "two", [3]], dtype=object)
    assert travel(sent).tolist() == [1, "two", [3]]
    by_value = np.array([make_adder(3)], dtype=object)
    assert travel(by_value)[0](4) == 7


def test_a_scalar_array_and_numpy_scalars_arrive() -> None:
    assert travel(np.array(5)).item() == 5
    assert travel(np.float32(2.5)) == np.float32(2.5)
    assert type(travel(np.float32(2.5))) is np.float32


def test_arrays_in_a_closure_travel_out_of_the_pickle_too() -> None:
    weights = sample(LARGE)

    def total() -> float:
        return float(weights.sum())

    assert len(pack(total).buffers) == 1
    assert travel(total)() == weights.sum()


def test_other_large_memory_arrives() -> None:
    for sent in (bytearray(LARGE), bytes(LARGE), array.array("d", [1.5]) * 100_000):
        arrived = travel(sent)
        assert arrived == sent
        assert type(arrived) is type(sent)


@examples(50)
@given(st.lists(st.integers(0, 3 * IN_BAND), max_size=5))
def test_any_number_of_buffers_of_any_size_arrive_in_order(sizes: list[int]) -> None:
    sent = [np.full(size, index, np.uint8) for index, size in enumerate(sizes)]
    for index, (ours, theirs) in enumerate(zip(travel(sent), sent, strict=True)):
        assert np.array_equal(ours, theirs), index


# Sizes


def test_a_message_over_the_limit_says_by_how_much() -> None:
    with pytest.raises(MessageTooLarge) as caught:
        pack(b"x" * 1000, max_size=100)
    assert caught.value.limit == 100
    assert caught.value.size == len(pickle.dumps(b"x" * 1000, 5))


def test_buffers_count_towards_the_limit() -> None:
    value = sample(LARGE)
    size = pack(value).size
    assert pack(value, max_size=size).size == size
    with pytest.raises(MessageTooLarge):
        pack(value, max_size=size - 1)


# What cannot be pickled or unpickled


class Refuses:
    """Raises while it is pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> NoReturn:
        raise self.error


class RefusesToArrive:
    """Raises while it is unpickled."""

    def __init__(self, error: BaseException | type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return raise_it, (self.error,)


def raise_it(error: BaseException | type[BaseException]) -> NoReturn:
    raise error


def type_name(value: object) -> str:
    return type(value).__name__


class Mute(Exception):
    """Cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [ValueError("why\nand more"), SystemExit(3), GeneratorExit(), Mute()], ids=type_name
)
def test_whatever_is_raised_while_pickling_is_not_sendable(error: BaseException) -> None:
    with pytest.raises(NotSendable) as caught:
        pack([Refuses(error)])
    assert caught.value.path == "item 0 of the message"
    assert caught.value.culprit == f"{__name__}.Refuses"
    assert type(error).__name__ in caught.value.why
    assert "\n" not in caught.value.why
    assert caught.value.__cause__ is error


def test_ctrl_c_while_pickling_is_no_answer_of_the_codec() -> None:
    with pytest.raises(KeyboardInterrupt):
        pack(Refuses(KeyboardInterrupt()))


def test_ctrl_c_while_unpickling_is_no_answer_of_the_codec() -> None:
    with pytest.raises(KeyboardInterrupt):
        unpack(pack(RefusesToArrive(KeyboardInterrupt)).body)


@pytest.mark.parametrize("error", [ValueError("why"), SystemExit(3), GeneratorExit, Mute], ids=repr)
def test_whatever_is_raised_while_unpickling_is_a_remote_error(
    error: BaseException | type[BaseException],
) -> None:
    body = pack(RefusesToArrive(error)).body
    with pytest.raises(
        RemoteError, match="the result of 'f' could not be unpickled here"
    ) as caught:
        unpack(body, what="the result of 'f'")
    kind = error if isinstance(error, type) else type(error)
    assert caught.value.type_name == kind.__name__
    assert isinstance(caught.value.__cause__, kind)


def test_a_nesting_too_deep_to_pickle_is_not_sendable() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotSendable, match=r"the message: list .*recursion"):
        pack(deep)


def test_a_class_that_is_not_where_it_says_travels_by_value() -> None:
    class Lost:
        pass

    Lost.__module__, Lost.__qualname__ = "nowhere", "Lost"
    assert type(travel(Lost())).__name__ == "Lost"


@pytest.mark.parametrize("value", [[1, "two", 3.0], make_adder(3), sample(100), Record("a", [1])])
def test_a_pickle_that_is_cut_short_is_a_remote_error(value: object) -> None:
    body = pack(value).body
    for end in range(0, len(body), max(1, len(body) // 100)):
        with pytest.raises(RemoteError):
            unpack(body[:end])


def test_buffers_that_did_not_come_are_a_remote_error() -> None:
    packed = pack([sample(LARGE), sample(LARGE)])
    with pytest.raises(RemoteError):
        unpack(packed.body, packed.buffers[:1])


def test_a_name_that_is_not_known_here_is_a_remote_error() -> None:
    body = pickle.dumps(module_function, 5).replace(b"module_function", b"other__function")
    with pytest.raises(RemoteError, match="other__function") as caught:
        unpack(body)
    assert caught.value.type_name == "AttributeError"


# What travels with a descriptor


class Ticket:
    """A stand-in for a channel."""

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = descriptor
        self.closed = False
        tickets.append(self)

    def depart(self) -> int:
        return self.descriptor

    def close(self) -> None:
        self.closed = True
        os.close(self.descriptor)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return arrive, (claim(self), Ticket)


tickets: list[Ticket] = []


@pytest.fixture(autouse=True)
def no_tickets() -> None:
    tickets.clear()


def descriptors(count: int) -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_travels_with_a_descriptor_finds_its_own() -> None:
    first, second = Ticket(), Ticket()
    packed = pack({"b": [second], "a": first, "again": first})
    assert list(packed.passengers) == [second, first]
    numbers = descriptors(2)
    arrived = unpack(packed.body, (), numbers)
    assert arrived["b"][0].descriptor == numbers[0]
    assert arrived["a"].descriptor == numbers[1]
    assert arrived["again"] is arrived["a"]
    for ticket in (arrived["b"][0], arrived["a"]):
        ticket.close()


def test_in_a_closure_too() -> None:
    ticket = Ticket()
    packed = pack(lambda: ticket)
    assert list(packed.passengers) == [ticket]
    numbers = descriptors(1)
    arrived = unpack(packed.body, (), numbers)()
    assert arrived.descriptor == numbers[0]
    arrived.close()


@pytest.mark.parametrize("copying", [pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy])
def test_nobody_else_can_pickle_such_a_thing(copying: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="a Ticket can only be sent by parallel itself"):
        copying(Ticket())


def test_nobody_else_can_unpickle_such_a_thing() -> None:
    body = pack(Ticket()).body
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(body)
    with pytest.raises(RemoteError, match="no such descriptor"):
        unpack(body)


def test_a_message_that_cannot_be_unpickled_closes_what_it_carried() -> None:
    packed = pack([Ticket(), RefusesToArrive(ValueError), Ticket()])
    numbers = descriptors(2)
    with pytest.raises(RemoteError):
        unpack(packed.body, (), numbers)
    assert not any(map(is_open, numbers))
    assert tickets[-1].closed


def test_descriptors_that_nothing_wants_are_closed() -> None:
    numbers = descriptors(2)
    assert unpack(pack("text").body, (), numbers) == "text"
    assert not any(map(is_open, numbers))


def test_too_few_descriptors_are_a_remote_error_and_closed() -> None:
    packed = pack([Ticket(), Ticket()])
    numbers = descriptors(1)
    with pytest.raises(RemoteError):
        unpack(packed.body, (), numbers)
    assert not is_open(numbers[0])


def test_a_value_that_could_not_be_pickled_claims_nothing_of_the_next() -> None:
    with pytest.raises(NotSendable):
        pack([Ticket(), threading.Lock()])
    assert pack("text").passengers in ((), [])
    with pytest.raises(TypeError):
        pickle.dumps(Ticket())


def test_two_threads_pack_and_unpack_without_each_other() -> None:
    rounds, failures = 200, []

    def work() -> None:
        for _ in range(rounds):
            ticket = Ticket()
            packed = pack([ticket, make_adder(3)])
            numbers = descriptors(1)
            arrived = unpack(packed.body, (), numbers)[0]
            if list(packed.passengers) != [ticket] or arrived.descriptor != numbers[0]:
                failures.append(packed)
            arrived.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_size_is_body_and_buffers() -> None:
    assert Packed(b"12345").size == 5
    assert Packed(b"12345", [memoryview(b"123")]).size == 8
