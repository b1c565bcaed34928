"""The payload: a large array, and the check that what came back is it."""

from typing import Any

import numpy
from numpy.typing import NDArray

SIZE = 100_000_000  # bytes

Array = NDArray[numpy.float64]


def array() -> Array:
    """Return an array of SIZE bytes, no two elements alike."""
    return numpy.arange(SIZE // 8, dtype=numpy.float64)


def check(sent: Array, received: Any) -> None:
    """Raise unless the array came back whole; a sample of its elements stands for all."""
    if not (
        isinstance(received, numpy.ndarray)
        and received.shape == sent.shape
        and (received[:: 2**12] == sent[:: 2**12]).all()
    ):
        raise ValueError("the array came back changed")
