"""Exceptions as bytes: with tracebacks, notes, causes, contexts and groups.

Each exception of the graph travels by itself, so that one which cannot be pickled (or not be
unpickled on the other side) is replaced by a `RemoteError` and the others arrive as they were.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, TypeAlias

import cloudpickle
import tblib
import trio

from ..errors import NotSendable, RemoteError
from .codec import pack, unpack
from .frames import Buffer
from .record import Record

_Line: TypeAlias = tuple[str, str, int, str]
"""Of a traceback: file, function, line number, module."""


class _Item(Record):
    """One exception: pickled, as text, and how it hangs together with the others (by number)."""

    pickled: bytes | None
    type_name: str
    text: str
    traceback_text: str
    traceback: tuple[_Line, ...]
    members: tuple[int, ...] | None
    cause: int | None
    context: int | None
    suppress_context: bool
    notes: tuple[str, ...]


def encode_failure(exc: BaseException, skip: int = 0) -> bytes:
    """`exc` and all that hangs on it; `skip` frames of its traceback are left out."""
    numbers: dict[int, int] = {}
    order: list[BaseException] = []

    def number(exc: BaseException | None) -> int | None:
        if exc is None or isinstance(exc, trio.Cancelled):
            return None
        if id(exc) not in numbers:
            numbers[id(exc)] = len(order)
            order.append(exc)
        return numbers[id(exc)]

    number(exc)
    records: list[_Item] = []
    while len(records) < len(order):  # `number` appends what it meets
        exc = order[len(records)]
        members = _members(exc)
        trace = _skip(exc.__traceback__, 0 if records else skip)
        records.append(
            _Item(
                _pickle(exc),
                type(exc).__qualname__,
                text_of(exc),
                _traceback_text(exc, trace),
                tuple(_lines(trace)),
                None if members is None else tuple(number(member) or 0 for member in members),
                number(exc.__cause__),
                number(exc.__context__),
                exc.__suppress_context__,
                tuple(_notes(exc)),
            )
        )
    return pickle.dumps(records, protocol=5)


def decode_failure(data: Buffer) -> BaseException:
    """The exception that `encode_failure` was given, as far as it can be had here."""
    records: list[_Item] = unpack(data, what="an exception")
    made = _make_all(records)
    for index, record in enumerate(records):
        exc = made[index]
        links: dict[str, object] = {
            "__cause__": None if record.cause is None else made[record.cause],
            "__context__": None if record.context is None else made[record.context],
            "__suppress_context__": record.suppress_context,  # setting a cause has changed it
            "__traceback__": _make_traceback(record.traceback),
        }
        _set_all(exc, {**links, "__notes__": list(record.notes)} if record.notes else links)
    return made[0]


def _set_all(exc: BaseException, attributes: Mapping[str, object]) -> None:
    """Also where the class forbids it: a frozen dataclass, for example."""
    for name, value in attributes.items():
        object.__setattr__(exc, name, value)


def _lines(trace: TracebackType | None) -> Iterator[_Line]:
    """Flat: a dict in a dict for each frame, tblib's form, is too deep for a RecursionError's."""
    while trace is not None:
        code = trace.tb_frame.f_code
        module = str(trace.tb_frame.f_globals.get("__name__", "?"))
        yield code.co_filename, code.co_name, trace.tb_lineno or 0, module
        trace = trace.tb_next


def _make_traceback(lines: Sequence[_Line]) -> TracebackType | None:
    """What tblib makes of as much of a traceback as it looks at."""
    trace: SimpleNamespace | None = None
    for filename, name, number, module in reversed(lines):
        code = SimpleNamespace(co_filename=filename, co_name=name)
        frame = SimpleNamespace(
            f_code=code, f_lineno=number, f_globals={"__name__": module, "__file__": filename}
        )
        trace = SimpleNamespace(tb_frame=frame, tb_lineno=number, tb_next=trace)
    made: TracebackType | None = tblib.Traceback(trace).as_traceback() if trace else None
    return made


def as_remote_error(exc: BaseException) -> RemoteError:
    """`exc` as text alone."""
    try:
        lines = traceback.format_exception(exc)
    except RecursionError:  # groups within groups within groups
        lines = [_traceback_text(exc, exc.__traceback__)]
    return RemoteError(type(exc).__qualname__, text_of(exc), "".join(lines))


def _traceback_text(exc: BaseException, trace: TracebackType | None) -> str:
    """Of this exception alone: `traceback` would look at all that hangs on it, for each of them."""
    lines = ["Traceback (most recent call last):\n", *traceback.format_tb(trace)] if trace else []
    for member in (exc, *(_members(exc) or ())):
        text = text_of(member)
        indent = "" if member is exc else "  | "
        lines.append(f"{indent}{type(member).__qualname__}{': ' if text else ''}{text}\n")
    return "".join((*lines, *(f"{note}\n" for note in _notes(exc))))


def _members(exc: BaseException) -> list[BaseException] | None:
    """The members of a group; never `trio.Cancelled`, which means nothing in another process."""
    if not isinstance(exc, BaseExceptionGroup):
        return None
    return [member for member in exc.exceptions if not isinstance(member, trio.Cancelled)]


def _skip(trace: TracebackType | None, count: int) -> TracebackType | None:
    while trace is not None and count > 0 and trace.tb_next is not None:
        trace, count = trace.tb_next, count - 1
    return trace


def text_of(thing: object) -> str:
    """What an exception (or a note) says, whatever its `__str__` does."""
    try:
        return thing.message if isinstance(thing, BaseExceptionGroup) else str(thing)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: ASYNC103
        return f"<its __str__ raised {type(failure).__name__}>"  # noqa: ASYNC104


def _notes(exc: BaseException) -> Iterator[str]:
    notes = getattr(exc, "__notes__", ())
    return map(text_of, notes if isinstance(notes, list | tuple) else ())


# How an exception was taken apart:
_GROUP = "group"  # class, message, attributes; the members are records of their own
_PLAIN = "plain"  # class, what the built-in base class keeps, attributes
_OWN = "own"  # by its own __reduce__


def _pickle(exc: BaseException) -> bytes | None:
    """None for what cannot be pickled, or not without descriptors of its own."""
    try:
        packed = pack(_take_apart(exc))
    except NotSendable:
        return None
    if packed.passengers:
        return None
    return cloudpickle.dumps(_take_apart(exc), protocol=5) if packed.buffers else packed.body


def _take_apart(exc: BaseException) -> tuple[Any, ...]:
    if not _has_plain_reduce(type(exc)):
        return _OWN, exc
    reduced: Any = exc.__reduce__()
    state = dict(reduced[2]) if len(reduced) > 2 else {}
    default: Any = object.__getstate__(exc)
    if isinstance(default, tuple):  # it has slots, which a built-in exception forgets
        state.update(default[1])
    state.pop("__notes__", None)
    if isinstance(exc, BaseExceptionGroup):
        return _GROUP, type(exc), (exc.message,), state
    return _PLAIN, type(exc), reduced[1], state


def _builtin_base(cls: type[BaseException]) -> type[BaseException]:
    """The nearest base class that is written in C."""
    return next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)


_HEAP_TYPE = 1 << 9


def _has_plain_reduce(cls: type[BaseException]) -> bool:
    """Whether its pickled form is that of a built-in exception: not redefined in Python."""
    base = _builtin_base(cls)
    return (
        cls.__reduce__ is base.__reduce__
        and cls.__reduce_ex__ is base.__reduce_ex__
        and getattr(cls, "__setstate__", None) is getattr(base, "__setstate__", None)
    )


def _make_all(records: list[_Item]) -> dict[int, BaseException]:
    """By number; a group takes its members when it is made, so they come first."""
    made: dict[int, BaseException] = {}
    waiting = list(range(len(records)))
    while waiting:
        index = waiting[-1]
        missing = [member for member in records[index].members or () if member not in made]
        if missing:
            waiting += missing
        elif waiting.pop() not in made:
            made[index] = _make(records[index], made)
    return made


def _make(record: _Item, made: Mapping[int, BaseException]) -> BaseException:
    try:
        return _unpickle(record.pickled, [made[member] for member in record.members or ()])
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: ASYNC103  # whatever it is, the caller gets the text instead
        error = RemoteError(record.type_name, record.text, record.traceback_text)
        return error  # noqa: ASYNC104


def _unpickle(pickled: bytes | None, members: list[BaseException]) -> BaseException:
    if pickled is None:
        raise TypeError("it was not pickled")
    form, *parts = unpack(pickled, what="an exception")
    exc: BaseException
    if form == _OWN:
        (exc,) = parts
        if not isinstance(exc, BaseException):
            raise TypeError("its __reduce__ makes something else of it")
        return exc
    cls, args, state = parts
    exc = cls.__new__(cls, *args, members) if form == _GROUP else _without_init(cls, args)
    _set_all(exc, state)
    return exc


def _without_init(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """As `cls(*args)`, but without running an `__init__` of the user's.

    `args` are what reached the built-in base class, not what the user's `__init__` took: a class
    whose `__init__` takes two arguments and passes one on would fail, or change its text.
    """
    exc = cls.__new__(cls, *args)
    _builtin_base(cls).__init__(exc, *args)
    return exc
