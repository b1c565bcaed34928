"""Bars: what must hold between the contenders of a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.samples import Samples, Spread, ratio

State = Literal["met", "missed", "reference not installed", "not measured"]


@dataclass(frozen=True, slots=True)
class AtMost:
    """We may cost at most `times` what the reference costs, and `seconds` on top of that."""

    times: float
    reference: str
    seconds: float = 0.0

    def __str__(self) -> str:
        more = f" + {self.seconds * 1e3:g} ms" if self.seconds else ""
        return f"<= {self.times:g} x {self.reference}{more}"

    def score(self, ours: Samples, reference: Samples) -> Spread:
        """Return our cost, but for the seconds, as a multiple of the reference's."""
        return ratio(ours.less(self.seconds), reference)

    def holds(self, score: float) -> bool:
        """Tell whether a score meets the bar."""
        return score <= self.times


@dataclass(frozen=True, slots=True)
class Faster:
    """The reference must cost at least `times` what we cost."""

    times: float
    reference: str

    def __str__(self) -> str:
        return f">= {self.times:g} x faster than {self.reference}"

    def score(self, ours: Samples, reference: Samples) -> Spread:
        """Return the reference's cost as a multiple of ours."""
        return ratio(reference, ours)

    def holds(self, score: float) -> bool:
        """Tell whether a score meets the bar."""
        return score >= self.times


@dataclass(frozen=True, slots=True)
class Within:
    """We may cost at most `seconds`, whatever others cost; the reference is ourselves."""

    seconds: float
    reference: str

    def __str__(self) -> str:
        return f"<= {self.seconds:g} s"

    def score(self, ours: Samples, reference: Samples) -> Spread:
        """Return our own cost."""
        del reference
        return ours.spread

    def holds(self, score: float) -> bool:
        """Tell whether a score meets the bar."""
        return score <= self.seconds


Bar = AtMost | Faster | Within


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one contender: its samples, or why there are none."""

    contender: str
    samples: Samples | None = None
    missing: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a bar is met, and by what score."""

    bar: Bar
    state: State
    score: Spread | None = None


def judge(bar: Bar, ours: str, outcomes: Mapping[str, Outcome]) -> Verdict:
    """Hold a row's outcomes against one of its bars."""
    reference = outcomes[bar.reference]
    measured = outcomes[ours].samples
    if reference.missing and bar.reference != ours:
        return Verdict(bar, "reference not installed")
    if measured is None or reference.samples is None:
        return Verdict(bar, "not measured")
    score = bar.score(measured, reference.samples)
    return Verdict(bar, "met" if bar.holds(score.median) else "missed", score)
