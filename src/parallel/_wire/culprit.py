"""Where in an object is the thing that cannot be pickled?

Pickle's own errors name a type, seldom the place. `find_culprit` walks down from the object, into
parts that cannot be pickled by themselves, to one that has no such part: that is to blame. Parts
that hold each other are all unpicklable, so the walk comes back from where it only finds again what
it has seen.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

MAX_DEPTH = 40
MAX_PARTS = 10_000
MAX_CHECKS = 20_000
MAX_KEY = 80
"""Characters of a key in a path."""

Part = tuple[str, object]


def find_culprit(
    roots: Mapping[str, object], is_sendable: Callable[[object], bool]
) -> tuple[str, str]:
    """The path to the culprit among the named `roots`, and its type's name.

    `closure variable 'lock' of 'job'`, `_thread.lock`
    """
    path, value = _walk(roots, is_sendable) or next(iter(roots.items()))
    return path, type_name(value)


def type_name(value: object) -> str:
    """The type's name with its module, builtins without."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


class _Level:
    """A value on the way down, with the parts of it that are still to be looked at."""

    def __init__(self, part: Part | None, parts: Iterator[Part]) -> None:
        self.part = part
        self.parts = islice(parts, MAX_PARTS)
        self.has_unsendable = False

    def next(self) -> Part | None:
        """The next part; what a user's class does meanwhile is its own affair."""
        try:
            return next(self.parts, None)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: ASYNC103
            return None  # noqa: ASYNC104


def _walk(roots: Mapping[str, object], is_sendable: Callable[[object], bool]) -> Part | None:
    """The culprit; the first root that cannot be pickled where none is found; None: all can."""
    seen: dict[int, object] = {}  # the values too, so that no other one gets the same id
    top: Part | None = None
    levels = [_Level(None, iter(roots.items()))]
    for _ in range(MAX_CHECKS):
        level = levels[-1]
        part = level.next()
        if part is None:
            levels.pop()
            if not level.has_unsendable or not levels:
                return level.part or top
        elif id(part[1]) in seen:
            level.has_unsendable = True
        elif not is_sendable(part[1]):
            level.has_unsendable = True
            top = top or part
            if len(levels) < MAX_DEPTH:
                seen[id(part[1])] = part[1]
                levels.append(_Level(part, _parts(part[1], part[0])))
    return top


def _parts(value: object, path: str) -> Iterator[Part]:
    """What `value` holds, each with its path."""
    if isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield f"the object of method {value.__name__!r}", value.__self__
        yield f"the function of method {value.__name__!r}", value.__func__
    elif isinstance(value, staticmethod | classmethod):
        yield path, value.__func__
    elif isinstance(value, property):
        yield from ((path, part) for part in (value.fget, value.fset, value.fdel))
    elif isinstance(value, functools.partial):
        yield f"the function of {path}", value.func
        for index, part in enumerate(value.args):
            yield f"argument {index} of {path}", part
        for key, part in value.keywords.items():
            yield f"argument {key!r} of {path}", part
    elif isinstance(value, type):
        yield from _class_parts(value)
    else:
        yield from _items(value, path)
        yield from _object_parts(value, path)


def _function_parts(function: types.FunctionType) -> Iterator[Part]:
    name, code = function.__name__, function.__code__
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure variable {variable!r} of {name!r}", cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    for variable in dict.fromkeys(_global_names(code)):
        if variable in function.__globals__:
            yield f"global variable {variable!r} of {name!r}", function.__globals__[variable]
    for part in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield f"a default of {name!r}", part
    for attribute, part in vars(function).items():
        yield f"attribute {attribute!r} of {name!r}", part


def _global_names(code: types.CodeType) -> Iterator[str]:
    """The globals that it reads, also in the functions that it defines."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _class_parts(cls: type) -> Iterator[Part]:
    for base in cls.__bases__:
        yield f"base class {base.__qualname__!r} of class {cls.__qualname__!r}", base
    for name, part in vars(cls).items():
        if not isinstance(part, types.GetSetDescriptorType | types.MemberDescriptorType):
            yield f"{name!r} of class {cls.__qualname__!r}", part


def _items(value: object, path: str) -> Iterator[Part]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f"key {_short(key)} of {path}", key
            yield f"item {_short(key)} of {path}", part
    elif isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(value):
            yield f"item {index} of {path}", part


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= MAX_KEY else f"{text[:MAX_KEY]}..."


def _object_parts(value: object, path: str) -> Iterator[Part]:
    """What pickle would write of it: state, what it is made of, its class."""
    reduced: Any = value.__reduce_ex__(5)
    if isinstance(reduced, str):
        return  # it is known by that name
    function, args = reduced[:2]
    state = reduced[2] if len(reduced) > 2 else None
    yield from _state_parts(value, state, path)
    for index, part in enumerate(args):
        if isinstance(part, type):
            yield f"class {part.__qualname__!r}", part
        else:
            yield f"part {index} of {path}", part
    yield f"what makes {path}", function


def _state_parts(value: object, state: Any, path: str) -> Iterator[Part]:
    fields = getattr(type(value), "__dataclass_fields__", {})
    if isinstance(state, list) and len(state) == len(fields):  # one with slots
        state = dict(zip(fields, state, strict=True))
    match state:
        case None:
            return
        case (None | dict() as attributes, dict() as slots):
            named = {**(attributes or {}), **slots}
        case dict():
            named = state
        case _:
            yield f"the state of {path}", state
            return
    for name, part in named.items():
        yield f"attribute {name!r} of {path}", part
