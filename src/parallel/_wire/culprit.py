"""Where in an object is the thing that cannot be pickled?

Pickle's own errors name a type, seldom the place. `find_culprit` walks down from the object: into
the first part that cannot be pickled by itself, as long as there is one.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

MAX_DEPTH = 40
MAX_PARTS = 10_000


def find_culprit(
    roots: Mapping[str, object], is_sendable: Callable[[object], bool]
) -> tuple[str, str]:
    """The path to the culprit among the named `roots`, and its type's name.

    `closure variable 'lock' of 'job'`, `_thread.lock`
    """
    path, value = _first_unsendable(iter(roots.items()), is_sendable) or next(iter(roots.items()))
    seen = {id(value)}
    for _ in range(MAX_DEPTH):
        parts = ((name, part) for name, part in _parts(value, path) if id(part) not in seen)
        found = _first_unsendable(islice(parts, MAX_PARTS), is_sendable)
        if found is None:
            break
        path, value = found
        seen.add(id(value))
    return path, type_name(value)


def type_name(value: object) -> str:
    """The type's name with its module, builtins without."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _first_unsendable(
    parts: Iterator[tuple[str, object]], is_sendable: Callable[[object], bool]
) -> tuple[str, object] | None:
    return next(((name, part) for name, part in parts if not is_sendable(part)), None)


def _parts(value: object, path: str) -> Iterator[tuple[str, object]]:
    """What `value` holds, each with its path."""
    if isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield f"the object of method {value.__name__!r}", value.__self__
    elif isinstance(value, functools.partial):
        yield f"the function of {path}", value.func
        for index, part in enumerate(value.args):
            yield f"argument {index} of {path}", part
        for key, part in value.keywords.items():
            yield f"argument {key!r} of {path}", part
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield f"key {key!r} of {path}", key
            yield f"item {key!r} of {path}", part
    elif isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(value):
            yield f"item {index} of {path}", part
    elif isinstance(value, type):
        for name, part in vars(value).items():
            yield f"{name!r} of class {value.__qualname__!r}", part
    else:
        yield from _attributes(value, path)


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    name, code = function.__name__, function.__code__
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure variable {variable!r} of {name!r}", cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    for variable in code.co_names:
        if variable in function.__globals__:
            yield f"global variable {variable!r} of {name!r}", function.__globals__[variable]
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    for part in defaults:
        yield f"a default of {name!r}", part


def _attributes(value: object, path: str) -> Iterator[tuple[str, object]]:
    try:
        value.__reduce_ex__(5)
    except Exception:
        return  # it refuses by itself, whatever it holds
    for name, part in getattr(value, "__dict__", {}).items():
        yield f"attribute {name!r} of {path}", part
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                yield f"attribute {name!r} of {path}", getattr(value, name)
