"""Outlets: the pipes into which a process of a host that is not the root's prints."""

from __future__ import annotations

import os

from .._endpoint import close_all


class Outlets:
    """Two pipes, in place of a process's stdout and stderr. Raises OSError when there are none."""

    def __init__(self) -> None:
        self._out = os.pipe()
        try:
            self._errors = os.pipe()
        except OSError:
            close_all(self._out)
            raise

    def print_into(self) -> None:
        """In the new process: stdout and stderr are these from now on."""
        for stream, (reading, writing) in ((1, self._out), (2, self._errors)):
            os.dup2(writing, stream)
            os.close(reading)
            os.close(writing)

    def keep(self) -> list[int]:
        """In its parent: the ends to read from; the others are closed."""
        close_all((self._out[1], self._errors[1]))
        return [self._out[0], self._errors[0]]

    def close(self) -> None:
        """There is no such process."""
        close_all((*self._out, *self._errors))
