"""The report: results as a table on a terminal."""

from rich.console import Console
from rich.table import Table

from bench.bars import Outcome, Verdict
from bench.result import Result
from bench.rows import OURS, Unit
from bench.samples import ratio

COLOURS = {"met": "green", "missed": "red", "reference not installed": "dim", "not measured": "red"}


def show(result: Result, console: Console) -> None:
    """Print a row: its contenders, then its bars."""
    table = Table(title=f"{result.row.name}: {result.row.title}", title_justify="left")
    table.add_column("contender", min_width=28)
    for heading in (result.row.unit.symbol, "quartiles", f"x {OURS}"):
        table.add_column(heading, justify="right", min_width=10)
    ours = result.outcomes[OURS]
    for outcome in result.outcomes.values():
        table.add_row(*cells(outcome, ours, result.row.unit))
    console.print(table)
    for outcome in result.outcomes.values():
        if outcome.samples is None:
            state = "is not installed" if outcome.missing else "failed"
            console.print(f"  {outcome.contender} {state}: {outcome.detail}", markup=False)
    for verdict in result.verdicts:
        console.print(sentence(verdict), highlight=False)
    console.print()


def cells(outcome: Outcome, ours: Outcome, unit: Unit) -> tuple[str, str, str, str]:
    """Return a contender's line of the table."""
    if outcome.samples is None:
        return outcome.contender, "-", "not installed" if outcome.missing else "failed", ""
    spread = outcome.samples.spread
    low, high = sorted((spread.low, spread.high), key=unit.show)
    times = "" if ours.samples is None else f"{ratio(outcome.samples, ours.samples).median:.2f}"
    name = f"[bold]{outcome.contender}[/]" if outcome is ours else outcome.contender
    return name, unit.text(spread.median), f"{unit.text(low)} - {unit.text(high)}", times


def sentence(verdict: Verdict) -> str:
    """Say what a bar asks, what was measured, and the verdict."""
    verdict_text = f"[{COLOURS[verdict.state]}]{verdict.state}[/]"
    if verdict.score is None:
        return f"  {verdict.bar}: {verdict_text}"
    score = verdict.score
    return (
        f"  {verdict.bar}: {score.median:.2f} "
        f"({score.low:.2f} - {score.high:.2f} by round), {verdict_text}"
    )
