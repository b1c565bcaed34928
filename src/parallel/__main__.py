"""`python -m parallel top`: the processes of the programs that run on this machine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from ._processes import ProcessInfo, find_programs, read_tree, render

CLEAR = "\x1b[H\x1b[2J"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m parallel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    top = commands.add_parser("top", help="show the tree of running processes")
    top.add_argument("pid", type=int, nargs="?", help="of any process of the program; default: all")
    top.add_argument("--once", action="store_true", help="print it once (so without a terminal)")
    top.add_argument(
        "--interval", type=_positive, default=1.0, metavar="SECONDS", help="between two looks"
    )
    options = parser.parse_args(arguments)
    if options.once or not sys.stdout.isatty():
        return show_once(options.pid)
    try:
        return show_again(options.pid, options.interval)
    except KeyboardInterrupt:
        return 0


def _positive(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def show_once(pid: int | None) -> int:
    """Print every program's tree; 1 if there is none."""
    trees = _look(pid)
    if not trees:
        print(_nothing_found(pid), file=sys.stderr)
        return 1
    print("\n\n".join(map(render, trees)))
    return 0


def show_again(pid: int | None, interval: float) -> int:
    """Refresh the screen until Ctrl-C, or until the program asked for is gone."""
    before: dict[int, float] = {}
    then = time.monotonic()
    while trees := _look(pid):
        used = {info.pid: info.cpu or 0.0 for tree in trees for info in tree}
        now = time.monotonic()
        percent = {
            each: 100 * (cpu - before[each]) / (now - then)
            for each, cpu in used.items()
            if each in before
        }
        text = "\n\n".join(render(tree, percent) for tree in trees)
        print(CLEAR + text, flush=True)
        before, then = used, now
        time.sleep(interval)
    print(_nothing_found(pid), file=sys.stderr)
    return 1


def _look(pid: int | None) -> list[ProcessInfo]:
    trees = []
    for table in find_programs(pid):
        try:
            trees.append(read_tree(table))
        except ValueError:
            continue  # it only bears the name
        finally:
            os.close(table)
    return trees


def _nothing_found(pid: int | None) -> str:
    if pid is None:
        return "no program that uses parallel runs here (as this user)"
    return f"process {pid} is not there, does not use parallel, or belongs to another user"


if __name__ == "__main__":
    sys.exit(main())
