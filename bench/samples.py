"""Samples: what one contender cost, round by round."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of one or more values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@dataclass(frozen=True, slots=True)
class Samples:
    """Costs (seconds or bytes: lower is better), grouped by the round they were taken in."""

    rounds: tuple[tuple[float, ...], ...]

    @property
    def values(self) -> tuple[float, ...]:
        """Every cost, whatever its round."""
        return tuple(cost for costs in self.rounds for cost in costs)

    @property
    def spread(self) -> Spread:
        """The median and quartiles over all rounds."""
        return spread(self.values)

    def less(self, amount: float) -> "Samples":
        """Return these costs, each less so much."""
        return Samples(tuple(tuple(cost - amount for cost in costs) for costs in self.rounds))


def ratio(numerator: Samples, denominator: Samples) -> Spread:
    """Compare two contenders of one row.

    The median is that of all numerator costs over that of all denominator costs. The quartiles are
    those of the ratios of single rounds: a drift of the machine is in both sides of each of them.
    """
    by_round = [
        statistics.median(above) / statistics.median(below)
        for above, below in zip(numerator.rounds, denominator.rounds, strict=True)
    ]
    around = spread(by_round)
    return Spread(numerator.spread.median / denominator.spread.median, around.low, around.high)
