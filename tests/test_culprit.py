"""`culprit`: what cannot be sent is named by the path that leads to it."""

from __future__ import annotations

import dataclasses
import functools
import socket
import threading
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import pytest
import trio

import parallel
from parallel import NotSendable
from parallel._wire.codec import pack
from parallel._wire.culprit import find_culprit, type_name

LOCK = "_thread.lock"


def named(value: object) -> str:
    """`PATH: CULPRIT` of a value that cannot be sent."""
    with pytest.raises(NotSendable) as caught:
        pack(value, "'job'")
    assert str(caught.value).startswith(f"cannot send {caught.value.path}: {caught.value.culprit}")
    return f"{caught.value.path}: {caught.value.culprit}"


# Containers and objects


class Holder:
    """Holds whatever it is given."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)

    def use(self) -> None: ...


class Slotted:
    """Holds it in a slot."""

    __slots__ = ("lock", "other")

    def __init__(self, lock: object) -> None:
        self.lock = lock


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """Holds it in a field."""

    name: str
    lock: object


@dataclasses.dataclass
class Plain:
    """Holds it in a field."""

    lock: object


class Hiding:
    """Keeps its lock to itself, as it should, but not the other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.other = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"other": self.other}


class Made:
    """Says what makes it."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return Made, self.parts


ITS_OBJECT = "attribute 'lock' of the object of method 'use'"
Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda lock: lock, "'job'"),
        (lambda lock: [1, lock], "item 1 of 'job'"),
        (lambda lock: (lock,), "item 0 of 'job'"),
        (lambda lock: {lock}, "item 0 of 'job'"),
        (lambda lock: Pair(1, lock), "item 1 of 'job'"),
        (lambda lock: {"a": 1, "b": lock}, "item 'b' of 'job'"),
        (lambda lock: {1: {2: [lock]}}, "item 0 of item 2 of item 1 of 'job'"),
        (lambda lock: {lock: 1}, "key <unlocked _thread.lock object at ...> of 'job'"),
        (lambda lock: OrderedDict(a=lock), "item 'a' of 'job'"),
        (lambda lock: defaultdict(int, a=lock), "item 'a' of 'job'"),
        (lambda lock: Holder(a=1, lock=lock), "attribute 'lock' of 'job'"),
        (lambda lock: [Holder(a=lock)], "attribute 'a' of item 0 of 'job'"),
        (lambda lock: Slotted(lock), "attribute 'lock' of 'job'"),
        (lambda lock: Frozen("a", lock), "attribute 'lock' of 'job'"),
        (lambda lock: Plain(lock), "attribute 'lock' of 'job'"),
        (lambda lock: Made(1, lock), "part 1 of 'job'"),
        (lambda lock: ValueError("text", lock), "part 1 of 'job'"),
        (lambda lock: Holder(lock=lock).use, ITS_OBJECT),
        (lambda lock: functools.partial(max, 1, lock), "argument 1 of 'job'"),
        (lambda lock: functools.partial(max, key=lock), "argument 'key' of 'job'"),
        (lambda lock: functools.partial(Holder(lock=lock).use), ITS_OBJECT),
    ],
)
def test_the_path_leads_through_containers_and_objects(
    make: Callable[[object], object], expected: str
) -> None:
    lock = threading.Lock()
    found = named(make(lock)).replace(hex(id(lock)), "...")
    assert found == f"{expected}: {LOCK}"


def test_what_an_object_leaves_out_itself_is_not_blamed() -> None:
    assert named(Hiding()) == f"attribute 'other' of 'job': {LOCK}"


def test_the_name_of_a_long_key_is_cut() -> None:
    path = named({"k" * 1000: threading.Lock()})
    assert len(path) < 150
    assert path.startswith("item 'kkkkkkkk")


# Functions and classes


def test_a_closure_variable_is_named_with_its_function() -> None:
    lock = threading.Lock()

    def job() -> object:
        return lock

    assert named(job) == f"closure variable 'lock' of 'job': {LOCK}"


def test_a_closure_variable_of_a_function_in_a_closure() -> None:
    lock = threading.Lock()

    def helper() -> object:
        return lock

    def job() -> object:
        return helper()

    assert named(job) == f"closure variable 'lock' of 'helper': {LOCK}"


def test_an_attribute_of_a_closure_variable() -> None:
    config = Holder(locks=[threading.Lock()])

    def job() -> object:
        return config

    path = "item 0 of attribute 'locks' of closure variable 'config' of 'job'"
    assert named(job) == f"{path}: {LOCK}"


def by_value(source: str, **variables: object) -> Any:
    """A function of a module that nobody can import."""
    namespace: dict[str, object] = {"__name__": "__main__", **variables}
    exec(source, namespace)
    return namespace["job"]


def test_a_global_variable_is_named_with_its_function() -> None:
    job = by_value("def job(): return guard.locked()", guard=threading.Lock())
    assert named(job) == f"global variable 'guard' of 'job': {LOCK}"


def test_a_global_variable_that_only_an_inner_function_reads() -> None:
    source = "def job(): return [guard for _ in range(3) if (lambda: other)()]"
    job = by_value(source, guard=1, other=threading.Lock())
    assert named(job) == f"global variable 'other' of 'job': {LOCK}"


def test_a_global_variable_that_shares_its_name_with_an_attribute_is_not_blamed() -> None:
    source = "def job(x=lock2): return x.lock"
    job = by_value(source, lock=threading.Lock(), lock2=threading.Lock())
    assert named(job) == f"a default of 'job': {LOCK}"


def test_a_default_is_named_with_its_function() -> None:
    lock = threading.Lock()
    assert named(lambda first=lock: first) == f"a default of '<lambda>': {LOCK}"
    assert named(lambda *, first=lock: first) == f"a default of '<lambda>': {LOCK}"


def test_an_attribute_of_a_function() -> None:
    def job() -> None: ...

    job.lock = threading.Lock()  # type: ignore[attr-defined]
    assert named(job) == f"attribute 'lock' of 'job': {LOCK}"


def test_a_class_attribute_is_named_with_its_class() -> None:
    class Local:
        lock = threading.Lock()

        def method(self) -> None: ...

    local = f"{test_a_class_attribute_is_named_with_its_class.__name__}.<locals>.Local"
    for value in (Local, Local(), [Local()], Local().method):
        assert named(value) == f"'lock' of class '{local}': {LOCK}"


def test_an_attribute_of_a_base_class() -> None:
    class Base:
        lock = threading.Lock()

    class Local(Base):
        def method(self) -> object:
            return super().__repr__()

    assert named(Local()).startswith("'lock' of class 'test_an_attribute_of_a_base_class")


def test_what_a_method_of_a_local_class_closes_over() -> None:
    lock = threading.Lock()

    class Local:
        def plain(self) -> None: ...

        @staticmethod
        def static() -> object:
            return lock

    class Other:
        @property
        def prop(self) -> object:
            return lock

    assert named(Local) == f"closure variable 'lock' of 'static': {LOCK}"
    assert named(Other()) == f"closure variable 'lock' of 'prop': {LOCK}"


# Shapes that make a search hard


def test_in_a_cycle_the_one_without_unsendable_parts_is_to_blame() -> None:
    parent, child = Holder(), Holder()
    parent.child, child.parent, parent.lock = child, parent, threading.Lock()  # type: ignore[attr-defined]
    assert named(parent) == f"attribute 'lock' of 'job': {LOCK}"
    assert named(child) == f"attribute 'lock' of attribute 'parent' of 'job': {LOCK}"


def test_a_container_that_holds_itself() -> None:
    value: list[object] = []
    value += [value, {"self": value}, threading.Lock()]
    assert named(value) == f"item 2 of 'job': {LOCK}"


def test_a_function_that_calls_itself() -> None:
    lock = threading.Lock()

    def job(n: int) -> object:
        return job(n - 1) if n else lock

    assert named(job) == f"closure variable 'lock' of 'job': {LOCK}"


@pytest.mark.slow
def test_a_thousand_nodes_that_all_know_each_other() -> None:
    nodes = [Holder(index=index) for index in range(1000)]
    for node in nodes:
        node.nodes = nodes  # type: ignore[attr-defined]
    nodes[700].lock = threading.Lock()  # type: ignore[attr-defined]
    assert named(nodes) == f"attribute 'lock' of item 700 of 'job': {LOCK}"


def test_a_huge_list_with_the_culprit_far_behind_is_named_as_a_whole() -> None:
    value = [*range(1_000_000), threading.Lock()]
    assert named(value) == "'job': list"
    assert named([0, value]) == "item 1 of 'job': list"


def test_a_culprit_too_deep_for_a_path_is_named_by_where_it_is() -> None:
    value: object = threading.Lock()
    for _ in range(60):
        value = [value]
    assert named(value) == "'job': list"


class Hostile(Mapping[str, object]):
    """Raises at every touch."""

    def refuse(self, *args: object) -> NoReturn:
        raise SystemExit("do not touch")

    __getitem__ = __iter__ = __len__ = __repr__ = __reduce_ex__ = __eq__ = refuse  # type: ignore[assignment]
    __hash__ = object.__hash__


class Unprintable:
    """A key without a text."""

    def __repr__(self) -> str:
        raise ValueError("no text")


def test_what_raises_when_it_is_looked_at_is_the_culprit() -> None:
    assert named([Hostile()]) == f"item 0 of 'job': {__name__}.Hostile"
    assert named({Unprintable(): threading.Lock()}) == "'job': dict"


class Endless:
    """Has parts without end."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Endless, (), {"next": Endless(), "lock": threading.Lock()}


def test_an_object_that_unfolds_without_end_is_left_alone() -> None:
    assert named(Endless()).endswith((f"{__name__}.Endless", LOCK))


# What people send by mistake


def generate() -> Iterator[int]:
    yield 1


async def coroutine() -> None: ...


def test_open_files_sockets_generators_and_coroutines_are_named() -> None:
    with socket.socket() as sock, open(__file__, "rb") as file:
        assert named([sock]) == "item 0 of 'job': socket.socket"
        assert named({"log": file}) == "item 'log' of 'job': _io.BufferedReader"
    assert named(generate()) == "'job': generator"
    unawaited = coroutine()
    assert named([unawaited]) == "item 0 of 'job': coroutine"
    unawaited.close()


async def test_what_belongs_to_an_event_loop_is_named() -> None:
    async with trio.open_nursery() as nursery:
        path = named(lambda: nursery)
    assert path.startswith(("closure variable 'nursery'", "attribute"))


def test_the_argument_is_named_that_is_to_blame() -> None:
    def job(*args: object) -> None: ...

    parts = {"'job'": job, "argument 0 of 'job'": 1, "argument 1 of 'job'": threading.Lock()}
    with pytest.raises(NotSendable) as caught:
        pack((job, tuple(parts.values())[1:]), "'job'", parts=parts)
    assert caught.value.path == "argument 1 of 'job'"
    assert caught.value.culprit == LOCK


def test_where_each_part_can_be_sent_the_first_is_named() -> None:
    assert find_culprit({"'f'": 1, "argument 0 of 'f'": 2}, lambda value: True) == ("'f'", "int")


def test_types_are_named_with_their_module() -> None:
    assert type_name(1) == "int"
    assert type_name(threading.Lock()) == LOCK
    assert type_name(Holder()) == f"{__name__}.Holder"


# Through the front door


async def test_run_names_it_before_a_process_starts(tree: None) -> None:
    lock = threading.Lock()

    def job() -> object:
        return lock

    with pytest.raises(NotSendable) as caught:
        await parallel.run(job)
    assert str(caught.value).startswith(f"cannot send closure variable 'lock' of 'job': {LOCK}")
    with pytest.raises(NotSendable, match=r"argument 1 of 'max': _thread\.lock"):
        await parallel.run(max, 1, lock)
    with pytest.raises(NotSendable, match="attribute 'lock' of argument 0 of 'print'"):
        await parallel.run(print, Holder(lock=lock))
    with pytest.raises(NotSendable, match="argument 0 of argument 0 of 'print'"):
        await parallel.run(print, functools.partial(print, lock))


def return_lock() -> object:
    return {"a": [threading.Lock()]}


async def test_a_result_that_cannot_be_sent_names_it_too(tree: None) -> None:
    with pytest.raises(NotSendable) as caught:
        await parallel.run(return_lock)
    assert caught.value.path == "item 0 of item 'a' of the result of 'return_lock'"
    assert caught.value.culprit == LOCK
