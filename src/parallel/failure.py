"""A failure: an exception as a value that travels whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ._wire.failure import decode_failure, encode_failure


class Failure:
    """An exception to be sent: as a message, an argument or a result, or within one.

    Pickled by itself an exception loses its traceback, and what it was raised from; one whose class
    asks for other arguments than it passes on does not arrive at all. In a `Failure` it arrives as
    what `parallel.run` raises would: with tracebacks, notes, causes, contexts and groups, and as a
    `RemoteError` where it cannot be pickled.

        await channel.send(parallel.Failure(exc))
        (await channel.receive()).reraise()
    """

    __slots__ = ("_skip", "exception")

    def __init__(self, exception: BaseException, skip: int = 0) -> None:
        self.exception = exception
        """What it holds."""
        self._skip = skip

    def reraise(self) -> NoReturn:
        """Raise it."""
        raise self.exception

    def __reduce__(self) -> tuple[Callable[[bytes], Failure], tuple[Any, ...]]:
        return _arrive, (encode_failure(self.exception, self._skip),)

    def __repr__(self) -> str:
        return f"Failure({self.exception!r})"


def _arrive(data: bytes) -> Failure:
    return Failure(decode_failure(data))
