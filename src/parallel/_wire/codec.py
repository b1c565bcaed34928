"""Pickle, as fast as plain C pickle where that will do, by value where it will not.

`pack` tries C pickle first. It falls back to cloudpickle for what C pickle refuses (lambdas,
closures, classes defined in a function), and for whatever belongs to `__main__`: C pickle would
only note its name, and the receiver's `__main__` is another one. A hook for each object would cost
0.97 us against 0.28 us, so the finished pickle is searched for the name instead.

What needs a descriptor to travel (a channel) asks for a place with `claim`, and finds its
descriptor with `arrive` on the other side. Outside `pack` and `unpack` both raise, so that nothing
but this codec pickles such a thing.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, TypeVar

import cloudpickle

from ..errors import MessageTooLarge, NotSendable, RemoteError
from .culprit import find_culprit
from .frames import UNLIMITED, Buffer

PortableT = TypeVar("PortableT", bound="Portable")

_ATOMS = frozenset({int, float, bool, str, bytes, type(None)})
"""Types whose pickle holds nothing but themselves."""

IN_BAND = 1 << 14
"""Buffers below this size in bytes are copied into the pickle: a part of its own costs more."""


class Portable(Protocol):
    """What travels with a descriptor of its own."""

    def depart(self) -> int:
        """Make that descriptor; called when the message is accepted."""
        ...

    def close(self) -> None:
        """Give it up; called where the message that carried it cannot be unpickled."""


class Packed:
    """A pickled value: its bytes, its large buffers, and what travels with it."""

    __slots__ = ("body", "buffers", "passengers", "size")

    def __init__(
        self,
        body: bytes,
        buffers: Sequence[memoryview] = (),
        passengers: Sequence[Portable] = (),
    ) -> None:
        self.body = body
        self.buffers = buffers
        self.passengers = passengers
        self.size = len(body) + sum(map(len, buffers)) if buffers else len(body)
        """In bytes, buffers included."""


class _State(threading.local):
    departing: list[Portable] | None = None
    arriving: list[int | None] | None = None
    arrived: list[Portable]


_state = _State()


def claim(thing: Portable) -> int:
    """From `__reduce_ex__`: a place for `thing` among the descriptors of the message."""
    if _state.departing is None:
        raise TypeError(
            f"a {type(thing).__name__} can only be sent by parallel itself (as an argument, in a "
            "closure, a result or a message); pickle and deepcopy cannot copy it"
        )
    _state.departing.append(thing)
    return len(_state.departing) - 1


def arrive(place: int, make: Callable[[int], PortableT]) -> PortableT:
    """While unpickling: make the thing that travelled at `place` from its descriptor."""
    arriving = _state.arriving
    descriptor = arriving[place] if arriving is not None else None
    if arriving is None or descriptor is None:
        raise pickle.UnpicklingError("this message carries no such descriptor")
    arriving[place] = None
    thing = make(descriptor)
    _state.arrived.append(thing)
    return thing


def pack(
    value: object,
    what: str = "the message",
    max_size: int = UNLIMITED,
    parts: Mapping[str, object] | None = None,
) -> Packed:
    """Pickle `value`.

    Raises `NotSendable`, which names the path from `what` (or from one of the named `parts`) to
    the culprit, and `MessageTooLarge`. The buffers still are the memory of `value`'s own arrays.
    """
    packed = _try_plain(value)
    if packed is None:
        try:
            packed = _dump(value, _dumps_by_value)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: ASYNC103  # a SystemExit of somebody's __reduce__
            path, culprit = find_culprit(parts or {what: value}, _is_sendable)
            raise NotSendable(path, culprit, _first_line(exc)) from exc  # noqa: ASYNC104
    if packed.size > max_size:
        raise MessageTooLarge(packed.size, max_size)
    return packed


def _try_plain(value: object) -> Packed | None:
    """With C pickle alone; None where that will not do."""
    if type(value) in _ATOMS:
        return Packed(pickle.dumps(value, 5))
    try:
        packed = _dump(value, pickle.dumps)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: ASYNC103
        return None  # noqa: ASYNC104
    by_value = b"__main__" in packed.body or cloudpickle.list_registry_pickle_by_value()
    return None if by_value else packed


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """cloudpickle, and modules of a type of their own (lazy ones, trio's before 0.26)."""

    def reducer_override(self, obj: Any) -> Any:
        """Pickle calls this for every object that is not of a basic type."""
        if isinstance(obj, ModuleType) and sys.modules.get(obj.__name__) is obj:
            return import_module, (obj.__name__,)
        return super().reducer_override(obj)


def _dumps_by_value(
    value: object, protocol: int, buffer_callback: Callable[[pickle.PickleBuffer], bool]
) -> bytes:
    with io.BytesIO() as file:
        _ByValue(file, protocol=protocol, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


def _dump(value: object, dumps: Callable[..., bytes]) -> Packed:
    buffers: list[memoryview] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < IN_BAND:
            return True
        buffers.append(view)
        return False

    departing: list[Portable] = []
    _state.departing = departing
    try:
        body = dumps(value, protocol=5, buffer_callback=keep_in_band)
    finally:
        _state.departing = None
    return Packed(body, buffers, departing)


def _is_sendable(value: object) -> bool:
    try:
        _dump(value, _dumps_by_value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: ASYNC103
        return False  # noqa: ASYNC104
    return True


def unpack(
    body: Buffer,
    buffers: Sequence[Buffer] = (),
    descriptors: Sequence[int] = (),
    what: str = "a message",
) -> Any:
    """Unpickle.

    Raises `RemoteError` for whatever goes wrong in there, a SystemExit included; then everything
    that came along is closed.
    """
    if descriptors:
        return _unpack_with(body, buffers, descriptors, what)
    try:
        return pickle.loads(body, buffers=buffers)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        raise _not_unpickled(what, exc) from exc  # noqa: ASYNC104


def _unpack_with(
    body: Buffer, buffers: Sequence[Buffer], descriptors: Sequence[int], what: str
) -> Any:
    arriving: list[int | None] = [*descriptors]
    _state.arriving = arriving
    _state.arrived = []
    try:
        return pickle.loads(body, buffers=buffers)
    except BaseException as exc:
        for thing in _state.arrived:
            thing.close()
        if isinstance(exc, KeyboardInterrupt):
            raise
        raise _not_unpickled(what, exc) from exc  # noqa: ASYNC104
    finally:
        for descriptor in arriving:
            if descriptor is not None:
                os.close(descriptor)
        _state.arriving, _state.arrived = None, []


def _not_unpickled(what: str, exc: BaseException) -> RemoteError:
    text = f"{what} could not be unpickled here: {_first_line(exc)}"
    return RemoteError(type(exc).__name__, text)


def _first_line(exc: BaseException) -> str:
    try:
        lines = str(exc).splitlines()
    except Exception:  # a __str__ of the user's
        lines = []
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__
