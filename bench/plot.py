"""The plot: results as a picture, one panel a row."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.bars import AtMost, Verdict, Within
from bench.result import Result
from bench.rows import OURS

OURS_COLOUR = "#1f6feb"
THEIRS_COLOUR = "#b8c0cc"
BAR_COLOURS = {"met": "#1a7f37", "missed": "#cf222e"}
COLUMNS = 2


def write(results: Sequence[Result], path: Path) -> None:
    """Draw every row's medians and quartiles, with its bars as dashed lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = -(-len(results) // COLUMNS)
    figure, grid = plt.subplots(
        lines, COLUMNS, figsize=(15, 3.1 * lines), squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for axes, result in zip(panels, results, strict=False):
        draw(axes, result)
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw(axes: Axes, result: Result) -> None:
    """Draw one row: a line a contender, its quartiles as whiskers, then the bars."""
    unit = result.row.unit
    measured = [outcome for outcome in result.outcomes.values() if outcome.samples is not None]
    for line, outcome in enumerate(measured):
        assert outcome.samples is not None
        spread = outcome.samples.spread
        median = unit.show(spread.median)
        low, high = sorted((unit.show(spread.low), unit.show(spread.high)))
        axes.barh(
            line,
            median,
            color=OURS_COLOUR if outcome.contender.startswith(OURS) else THEIRS_COLOUR,
            xerr=[[max(0.0, median - low)], [max(0.0, high - median)]],
            error_kw={"ecolor": "#57606a", "capsize": 3},
        )
        axes.annotate(
            unit.text(spread.median), (high, line), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(measured)), [outcome.contender for outcome in measured])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    more = "more is better" if unit.rate else "less is better"
    axes.set_title(f"{result.row.title} [{unit.symbol}, {more}]", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    for verdict in result.verdicts:
        draw_bar(axes, result, verdict)
    if axes.get_legend_handles_labels()[0]:  # below the axis, where it hides nothing
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.1), ncols=2, frameon=False)


def draw_bar(axes: Axes, result: Result, verdict: Verdict) -> None:
    """Draw the line on whose better side our median has to end."""
    cost = limit(result, verdict)
    if cost is None:
        return
    axes.axvline(
        result.row.unit.show(cost),
        color=BAR_COLOURS[verdict.state],
        linestyle="--",
        linewidth=1.2,
        label=f"{verdict.bar}: {verdict.state}",
    )


def limit(result: Result, verdict: Verdict) -> float | None:
    """Return the cost at which a bar would be met exactly; None if it was not judged."""
    bar = verdict.bar
    if isinstance(bar, Within):
        return bar.seconds if verdict.score is not None else None
    reference = result.outcomes[bar.reference].samples
    if verdict.score is None or reference is None:
        return None
    median = reference.spread.median
    return median * bar.times + bar.seconds if isinstance(bar, AtMost) else median / bar.times
