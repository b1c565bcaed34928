"""A result: a row with what came of its contenders and bars."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.bars import Outcome, Verdict, judge
from bench.rows import OURS, Row


@dataclass(frozen=True, slots=True)
class Result:
    """A measured row."""

    row: Row
    outcomes: Mapping[str, Outcome]
    verdicts: tuple[Verdict, ...]


def judged(row: Row, outcomes: Mapping[str, Outcome]) -> Result:
    """Judge the outcomes of a row by its bars."""
    return Result(row, outcomes, tuple(judge(bar, OURS, outcomes) for bar in row.bars))
