"""Rows: what is measured, by whom, and what must hold."""

from dataclasses import dataclass

from bench.bars import AtMost, Bar, Faster, Within
from bench.cpus import Layout

OURS = "parallel"


@dataclass(frozen=True, slots=True)
class Unit:
    """How a cost is shown: multiplied by a scale, or (a rate) as a scale divided by the cost."""

    symbol: str
    scale: float
    rate: bool = False

    def show(self, cost: float) -> float:
        """Return the number to print for a cost."""
        return self.scale / cost if self.rate else cost * self.scale

    def text(self, cost: float) -> str:
        """Return that number with three digits that matter, or all before the point."""
        value = self.show(cost)
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How often: rounds, and operations in each turn."""

    rounds: int
    operations: int


@dataclass(frozen=True, slots=True)
class Contender:
    """Who: a name, and the function that does the work.

    That is `module:function` in contenders/, or `module:function:argument`.
    """

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work: its contenders (ours first), its bars, its plans."""

    name: str
    title: str
    unit: Unit
    contenders: tuple[Contender, ...]
    bars: tuple[Bar, ...]
    plan: Plan
    quick: Plan
    baseline: str | None = None  # the contender whose median is subtracted from everybody's


MILLISECONDS = Unit("ms", 1e3)
MICROSECONDS = Unit("us", 1e6)
THOUSANDS_PER_SECOND = Unit("k/s", 1e-3, rate=True)
MEGABYTES_BOTH_WAYS = Unit("MB/s", 200, rate=True)  # 100 MB there and 100 MB back
MEGABYTES_ONE_WAY = Unit("MB/s", 100, rate=True)
MEBIBYTES = Unit("MiB", 2**-20)


WHERE = {
    "free": "",
    "shared": ", both ends on one CPU",
    "apart": ", each end on a CPU of its own",
}


def roundtrip(name: str, layout: Layout, bars: tuple[Bar, ...]) -> Row:
    """Return the row of round trips in one layout.

    Only the free one is compared with execnet: it has threads on both sides, and to crowd them on
    one CPU, or two, is a help that its users do not have.
    """
    return Row(
        name,
        f"round trip on a channel, small message{WHERE[layout]}",
        MICROSECONDS,
        (
            Contender(OURS, f"ours:roundtrip:{layout}"),
            Contender("bare trio loop", f"bare_trio:roundtrip:{layout}"),
            Contender("execnet", f"with_execnet:roundtrip:{layout}"),
            Contender("multiprocessing.Pipe", f"with_multiprocessing_pipe:roundtrip:{layout}"),
            Contender("tractor", f"with_tractor:roundtrip:{layout}"),
        ),
        bars,
        plan=Plan(rounds=30, operations=1000),
        quick=Plan(rounds=6, operations=400),
    )


def start(name: str, count: int, bars: tuple[Bar, ...], *more: Contender) -> Row:
    """Return the row of starting so many hosts."""
    return Row(
        name,
        f"start of {count} ssh host{'s' if count > 1 else ''}",
        MILLISECONDS,
        (
            Contender(OURS, f"ours_ssh:start:{count}"),
            *more,
            Contender("execnet, one after the other", f"with_execnet_ssh:start:{count}"),
        ),
        bars,
        plan=Plan(rounds=5, operations=1),
        quick=Plan(rounds=2, operations=1),
    )


OVER_SSH = (
    Row(
        "ssh-process",
        "no-op in a fresh process of an ssh host, exit waited for",
        MILLISECONDS,
        (
            Contender(OURS, "ours_ssh:process"),
            Contender("parallel, local", "ours:process"),
            Contender("bare asyncssh exec", "bare_asyncssh:process"),
            Contender("execnet, connecting", "with_execnet_ssh:process_connecting"),
            Contender("execnet, no fresh process", "with_execnet_ssh:process"),
        ),
        (AtMost(2, "parallel, local", seconds=0.005), Faster(1, "execnet, connecting")),
        plan=Plan(rounds=12, operations=5),
        quick=Plan(rounds=3, operations=3),
    ),
    Row(
        "ssh-roundtrip",
        "round trip on a channel to an ssh host, small message",
        MICROSECONDS,
        (
            Contender(OURS, "ours_ssh:roundtrip"),
            Contender("bare asyncssh pipe", "bare_asyncssh:roundtrip"),
            Contender("execnet", "with_execnet_ssh:roundtrip"),
        ),
        (Faster(1, "execnet"),),
        plan=Plan(rounds=20, operations=500),
        quick=Plan(rounds=5, operations=200),
    ),
    Row(
        "ssh-oneway",
        "small messages one way to an ssh host, counted by the receiver",
        THOUSANDS_PER_SECOND,
        (
            Contender(OURS, "ours_ssh:oneway"),
            Contender("bare asyncssh pipe", "bare_asyncssh:oneway"),
            Contender("execnet", "with_execnet_ssh:oneway"),
        ),
        (Faster(1, "execnet"),),
        plan=Plan(rounds=12, operations=10_000),
        quick=Plan(rounds=4, operations=4_000),
    ),
    Row(
        "ssh-array",
        "100 MB NumPy array to an ssh host",
        MEGABYTES_ONE_WAY,
        (
            Contender(OURS, "ours_ssh:array"),
            Contender("bare asyncssh pipe", "bare_asyncssh:array"),
            Contender("scp", "with_scp:array"),
            Contender("execnet", "with_execnet_ssh:array"),
        ),
        (Faster(0.8, "bare asyncssh pipe"), Faster(1, "execnet")),
        plan=Plan(rounds=6, operations=2),
        quick=Plan(rounds=2, operations=1),
    ),
    Row(
        "ssh-between",
        "100 MB NumPy array from one ssh host to another",
        MEGABYTES_ONE_WAY,
        (
            Contender(OURS, "ours_ssh:array_between"),
            Contender("parallel, from the root", "ours_ssh:array"),
        ),
        (),
        plan=Plan(rounds=6, operations=2),
        quick=Plan(rounds=2, operations=1),
    ),
    Row(
        "ssh-between-roundtrip",
        "round trip from one ssh host to another, small message",
        MICROSECONDS,
        (
            Contender(OURS, "ours_ssh:roundtrip_between"),
            Contender("parallel, from the root", "ours_ssh:roundtrip"),
        ),
        (),
        plan=Plan(rounds=20, operations=500),
        quick=Plan(rounds=5, operations=200),
    ),
    start("ssh-start", 1, (AtMost(1, "execnet, one after the other"),)),
    start("ssh-start-3", 3, (AtMost(1, "execnet, one after the other"),)),
    start(
        "ssh-start-10",
        10,
        (AtMost(2, "parallel, one host"), AtMost(1, "execnet, one after the other")),
        Contender("parallel, one host", "ours_ssh:start:1"),
    ),
)

ROWS = (
    Row(
        "process",
        "no-op in a fresh process, exit waited for",
        MILLISECONDS,
        (
            Contender(OURS, "ours:process"),
            Contender("parallel, preloaded", "ours:process_preloaded"),
            Contender("bare fork", "bare_fork:process"),
            Contender("execnet", "with_execnet:process"),
            Contender("multiprocessing forkserver", "with_multiprocessing:process"),
            Contender("trio-parallel", "with_trio_parallel:process"),
            Contender("loky", "with_loky:process"),
            Contender("mpire", "with_mpire:process"),
            Contender("tractor", "with_tractor:process"),
        ),
        (AtMost(1.5, "bare fork"), Faster(8, "execnet")),
        plan=Plan(rounds=15, operations=8),
        quick=Plan(rounds=3, operations=3),
    ),
    roundtrip("roundtrip", "free", (AtMost(2.2, "bare trio loop"), Faster(1.5, "execnet"))),
    roundtrip("roundtrip-shared", "shared", (AtMost(2.2, "bare trio loop"),)),
    roundtrip("roundtrip-apart", "apart", (AtMost(2.2, "bare trio loop"),)),
    Row(
        "oneway",
        "small messages one way, counted by the receiver",
        THOUSANDS_PER_SECOND,
        (
            Contender(OURS, "ours:oneway"),
            Contender("execnet", "with_execnet:oneway"),
            Contender("multiprocessing.Pipe", "with_multiprocessing_pipe:oneway"),
        ),
        (Faster(2, "execnet"),),
        plan=Plan(rounds=20, operations=20_000),
        quick=Plan(rounds=5, operations=10_000),
    ),
    Row(
        "array",
        "echo of a 100 MB NumPy array",
        MEGABYTES_BOTH_WAYS,
        (
            Contender(OURS, "ours:array"),
            Contender("multiprocessing.Pipe", "with_multiprocessing_pipe:array"),
            Contender("bare sockets, recv_into", "bare_sockets:array"),
            Contender("ray", "with_ray:array"),
        ),
        (Faster(5, "multiprocessing.Pipe"),),
        plan=Plan(rounds=8, operations=3),
        quick=Plan(rounds=2, operations=2),
    ),
    Row(
        "cascade",
        "cascade of 100 nested processes",
        MILLISECONDS,
        (
            Contender(OURS, "ours:cascade"),
            Contender("parallel, preloaded", "ours:cascade_preloaded"),
            Contender("nested multiprocessing fork", "with_multiprocessing:cascade"),
        ),
        (AtMost(2, "nested multiprocessing fork"),),
        plan=Plan(rounds=8, operations=1),
        quick=Plan(rounds=2, operations=1),
    ),
    Row(
        "cancellation",
        "cascade of 100 cancelled, until no process is left",
        MILLISECONDS,
        (Contender(OURS, "ours:cancellation"),),
        (Within(1.0, OURS),),
        plan=Plan(rounds=8, operations=1),
        quick=Plan(rounds=2, operations=1),
    ),
    Row(
        "memory",
        "private memory of an idle worker",
        MEBIBYTES,
        (
            Contender(OURS, "ours:memory"),
            Contender("parallel, preloaded", "ours:memory_preloaded"),
            Contender("bare fork", "bare_fork:memory"),
            Contender("multiprocessing forkserver", "with_multiprocessing:memory"),
            Contender("execnet", "with_execnet:memory"),
            Contender("loky", "with_loky:memory"),
        ),
        (AtMost(1.5, "bare fork"),),
        plan=Plan(rounds=3, operations=5),
        quick=Plan(rounds=1, operations=3),
    ),
    Row(
        "import",
        "import of what a program uses, in a fresh interpreter, less an empty one",
        MILLISECONDS,
        (
            Contender(OURS, "imports:parallel"),
            Contender("parallel, no name used", "imports:parallel_unused"),
            Contender("trio", "imports:trio"),
            Contender("empty interpreter", "imports:nothing"),
        ),
        (AtMost(1.15, "trio"),),
        plan=Plan(rounds=40, operations=1),
        quick=Plan(rounds=7, operations=1),
        baseline="empty interpreter",
    ),
    *OVER_SSH,
)
