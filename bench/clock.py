"""The clock: how long something took."""

import time
from collections.abc import Callable


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds an action took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
