"""`python -m parallel`: `top` shows the processes of running programs, `check` tries hosts."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import trio

from ._check import Report, check
from ._check import render as render_reports
from ._cluster import Cluster
from ._processes import ProcessInfo, render
from ._programs import look
from .errors import ParallelError

CLEAR = "\x1b[H\x1b[2J"

PATIENCE = 2.5
"""Seconds to wait for what is to be seen of other hosts."""

INTERRUPTED = 130
"""The exit status after a Ctrl-C, as shells have it."""


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
    trial = commands.add_parser("check", help="try hosts: can they be used, how good are they?")
    trial.add_argument("hosts", nargs="*", metavar="HOST", help="user@host:port, or an ssh alias")
    trial.add_argument("--cluster", metavar="FILE", help="the hosts of a cluster file as well")
    trial.add_argument("--json", action="store_true", help="print what a program can read")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return run_check(_cluster(trial, options.hosts, options.cluster), as_json=options.json)
    if options.once or not sys.stdout.isatty():
        return show_once(options.pid)
    try:
        return show_again(options.pid, options.interval)
    except KeyboardInterrupt:
        return 0


def _cluster(parser: argparse.ArgumentParser, hosts: Sequence[str], file: str | None) -> Cluster:
    """The hosts that are named, and those of the file; exits where that makes no sense."""
    try:
        described = Cluster.from_toml(file).sources if file is not None else ()
        cluster = Cluster([*hosts, *described])
    except (ParallelError, ValueError, OSError) as exc:
        parser.error(str(exc))
    if not cluster.sources:
        parser.error("name a host, or a file with --cluster")
    return cluster


def run_check(cluster: Cluster, *, as_json: bool) -> int:
    """Print what is found of each host; 1 if any cannot be used."""
    reports: list[Report] | None = None
    try:
        reports = trio.run(check, cluster)
    except* KeyboardInterrupt:
        pass
    if reports is None:
        return INTERRUPTED
    if as_json:
        print(json.dumps([report.as_json() for report in reports], indent=2))
    else:
        print(render_reports(reports))
    return int(any(report.status != "ok" for report in reports))


def _positive(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def show_once(pid: int | None) -> int:
    """Print every program's tree; 1 if there is none."""
    looks = look(pid, time.time(), PATIENCE, PATIENCE)
    if not looks:
        print(_nothing_found(pid), file=sys.stderr)
        return 1
    print("\n\n".join(render(tree) for tree, _ in looks))
    return 0


def show_again(pid: int | None, interval: float) -> int:
    """Refresh the screen until Ctrl-C, or until the program asked for is gone."""
    usage = Usage()
    started = time.time()
    while looks := look(pid, started, 0.0, interval + PATIENCE):
        texts = [render(tree, usage.update(tree, then)) for tree, then in looks]
        print(CLEAR + "\n\n".join(texts), flush=True)
        time.sleep(interval)
    print(_nothing_found(pid), file=sys.stderr)
    return 1


class Usage:
    """The share of a processor that each process uses, from one look at it to the next."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[tuple[str, int], _Use]] = {}

    def update(self, tree: ProcessInfo, now: float) -> dict[tuple[str, int], float]:
        """Percents, by host and pid, of what has been seen before; `now` is when this was seen."""
        seen = self._seen.get(tree.pid, {})
        uses = {}
        for info in tree:
            key, cpu = (info.host, info.pid), info.cpu or 0.0
            last = seen.get(key, _Use(now, cpu, None))
            percent = (
                100 * (cpu - last.cpu) / (now - last.time) if now > last.time else last.percent
            )
            uses[key] = _Use(now, cpu, percent)
        self._seen[tree.pid] = uses
        return {key: use.percent for key, use in uses.items() if use.percent is not None}


class _Use(NamedTuple):
    """Of a processor: seconds at some time, and the percents until then."""

    time: float
    cpu: float
    percent: float | None


def _nothing_found(pid: int | None) -> str:
    if pid is None:
        return "no program that uses parallel runs here (as this user)"
    return f"process {pid} is not there, does not use parallel, or belongs to another user"


if __name__ == "__main__":
    sys.exit(main())
