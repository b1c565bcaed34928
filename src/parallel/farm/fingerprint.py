"""Fingerprints: what a value is known by in another run of the same program. Pure.

A fingerprint is the SHA-256 of a pickle that depends on the value alone: not on which of its parts
are one object (a result that comes out of a journal shares less with others than one that comes
from a worker), and not on where a function lies in memory. It is never unpickled.

A function is known by its module and name, its defaults and what it closes over; a lambda, which
has no name, by its code too.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle


def fingerprint(*values: Any) -> bytes:
    """32 bytes. Raises whatever pickling raises, for what no pickler can do."""
    return hashlib.sha256(_dumps(values, ())).digest()


def fingerprint_of_call(fn: Any) -> bytes:
    """That of a function with what it is bound to, whatever that is."""
    return _of_part(fn, ())


def _dumps(value: Any, inside: tuple[FunctionType, ...]) -> bytes:
    with io.BytesIO() as file:
        try:
            _Pickler(file, inside).dump(value)
        except Exception:  # it contains itself, or is of a class that plain pickle cannot do
            data: bytes = cloudpickle.dumps(value, protocol=5)
            return data
        return file.getvalue()


def _of_part(value: Any, inside: tuple[FunctionType, ...]) -> bytes:
    """What cannot be pickled, such as a channel, is known by its type alone."""
    try:
        return hashlib.sha256(_dumps(value, inside)).digest()
    except Exception:
        return type(value).__qualname__.encode()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, inside: tuple[FunctionType, ...]) -> None:
        super().__init__(file, protocol=5)
        self.fast = True  # keep no memo: what is equal is the same
        self._inside = inside

    def reducer_override(self, obj: Any) -> Any:
        """Pickle calls this for every object that is not of a basic type."""
        # `hash` stands for "known by": a builtin, for which this is of no consequence.
        if isinstance(obj, FunctionType):
            return hash, self._function(obj)
        if isinstance(obj, partial):
            inside = self._inside
            args = [_of_part(arg, inside) for arg in obj.args]
            keywords = {name: _of_part(arg, inside) for name, arg in obj.keywords.items()}
            return hash, (obj.func, args, keywords)
        if isinstance(obj, type):
            return hash, (obj.__module__, obj.__qualname__)
        if isinstance(obj, ModuleType):
            return hash, (obj.__name__,)
        return NotImplemented

    def _function(self, fn: FunctionType) -> tuple[Any, ...]:
        name = fn.__module__, fn.__qualname__
        if fn in self._inside:
            return name  # it calls itself
        inside = (*self._inside, fn)
        bound = [
            _of_part(part, inside)
            for part in (fn.__defaults__, fn.__kwdefaults__, *map(_content, fn.__closure__ or ()))
        ]
        return *name, bound, _code(fn.__code__) if fn.__name__ == "<lambda>" else None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # it will be set later


def _code(code: CodeType) -> tuple[Any, ...]:
    """What it does, wherever it stands in its file."""
    constants = [
        _code(each)
        if isinstance(each, CodeType)
        else sorted(map(repr, each))  # those of a set come in another order in each run
        if isinstance(each, frozenset)
        else repr(each)
        for each in code.co_consts
    ]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants
