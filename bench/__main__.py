"""The command line: `python -m bench`, from the project's root."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import plot, record, report
from bench.farm_rows import FARM_ROWS
from bench.result import Result, judged
from bench.rows import ROWS as CORE_ROWS
from bench.runner import measure

ROWS = (*CORE_ROWS, *FARM_ROWS)
RESULTS = Path("bench", "results")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure parallel side by side with its references.",
        epilog="Exit status: 0, or 1 if a bar was missed or could not be measured.",
    )
    names = [row.name for row in ROWS]
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"only these rows, of: {', '.join(names)}",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, in under half a minute")
    parser.add_argument(
        "--json",
        type=Path,
        default=RESULTS / "bench.json",
        metavar="FILE",
        help="where to write the samples (default: %(default)s)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        default=RESULTS / "bench.png",
        metavar="FILE",
        help="where to draw them (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure the rows, show and write what came of them; return the exit status."""
    options = parse(arguments)
    console = Console()
    warn_of_company(console)
    results: list[Result] = []
    for row in ROWS:
        if row.name in options.rows:
            outcomes = measure(row, row.quick if options.quick else row.plan)
            results.append(judged(row, outcomes))
            report.show(results[-1], console)
    record.write(results, options.json, quick=options.quick)
    plot.write(results, options.plot)
    console.print(f"Written: {options.json}, {options.plot}")
    states = [verdict.state for result in results for verdict in result.verdicts]
    console.print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    return int("missed" in states or "not measured" in states)


def warn_of_company(console: Console) -> None:
    """Say so if others keep the machine busy: who needs two CPUs loses more by it than others."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load > cpus / 2:
        console.print(f"The load is {load:.1f} on {cpus} CPUs: expect a spread, and worse ratios.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
