"""Rows of the farm."""

from bench.bars import AtMost, Bar, Faster, Within
from bench.rows import MICROSECONDS, MILLISECONDS, OURS, THOUSANDS_PER_SECOND, Contender, Plan, Row
from bench.tasks import OBLIGATIONS

POOL = "multiprocessing.Pool"
LONG = 0.2


def kernel(name: str, title: str, grain: str, bars: tuple[Bar, ...], count: int) -> Row:
    """Return the row of a kernel on two cores."""
    work = f"{name}:{grain}"
    size = {"coarse": "10 ms and more", "fine": "0.1 ms"}[grain]
    return Row(
        f"farm-{name}-{grain}",
        f"{title}, two workers, tasks of {size}: per task",
        MILLISECONDS if grain == "coarse" else MICROSECONDS,
        (
            Contender(OURS, f"ours_farm:kernel:{work}"),
            Contender("sequential", f"with_pools:sequential:{work}"),
            Contender("two bare forks", f"with_pools:halves:{work}"),
            Contender(POOL, f"with_pools:multiprocessing_pool:{work}"),
        ),
        bars,
        plan=Plan(rounds=5, operations=count),
        quick=Plan(rounds=3, operations=count),
    )


# The second holds on a busy machine, too.
COARSE = (Faster(1.9, "sequential"), AtMost(1.05, "two bare forks"))
FINE = (Faster(1, "sequential"),)

FARM_ROWS = (
    Row(
        "farm-noops",
        "no-ops on two workers of a farm, results as they come",
        THOUSANDS_PER_SECOND,
        (
            Contender(OURS, "ours_farm:noops"),
            Contender("parallel, generated", "ours_farm:generated"),
            Contender(POOL, "with_pools:multiprocessing_pool"),
            Contender("ProcessPoolExecutor", "with_pools:futures"),
            Contender("mpire", "with_mpire:noops"),
            Contender("loky", "with_loky:noops"),
            Contender("Dask", "with_dask:noops"),
            Contender("ray", "with_ray:noops"),
        ),
        (Faster(1.5, POOL),),
        plan=Plan(rounds=9, operations=2_000),
        quick=Plan(rounds=3, operations=2_000),
    ),
    kernel("queens", "N queens", "coarse", COARSE, 240),
    kernel("mandelbrot", "Mandelbrot", "coarse", COARSE, 303),
    kernel("matrix", "product of matrices of big integers", "coarse", COARSE, 300),
    kernel("queens", "N queens", "fine", FINE, 5_000),
    kernel("mandelbrot", "Mandelbrot", "fine", FINE, 5_000),
    kernel("matrix", "product of matrices of big integers", "fine", FINE, 5_000),
    Row(
        "farm-provers",
        "320 tasks of very different lengths on 20 workers, longest first: per task",
        MILLISECONDS,
        (
            Contender(OURS, "ours_farm:provers:longest"),
            Contender("one worker", "with_pools:one_prover"),
        ),
        (Faster(19, "one worker"),),
        plan=Plan(rounds=5, operations=OBLIGATIONS),
        quick=Plan(rounds=2, operations=OBLIGATIONS),
    ),
    Row(
        "farm-provers-unsorted",
        "the same in any order: per task",
        MILLISECONDS,
        (
            Contender(OURS, "ours_farm:provers:any"),
            Contender("one worker", "with_pools:one_prover"),
            Contender("if nothing cost anything", "with_pools:free_provers"),
        ),
        (AtMost(1.05, "if nothing cost anything"),),
        plan=Plan(rounds=5, operations=OBLIGATIONS),
        quick=Plan(rounds=2, operations=OBLIGATIONS),
    ),
    Row(
        "farm-ssh",
        "task of 25 ms on an ssh host, one at a time: what it costs on top of that",
        MICROSECONDS,
        (
            Contender(OURS, "ours_farm:ssh_naps"),
            Contender("parallel, no-ops in batches", "ours_farm:ssh_noops"),
        ),
        (Within(0.001, OURS),),
        plan=Plan(rounds=10, operations=40),
        quick=Plan(rounds=3, operations=20),
    ),
    Row(
        "farm-recovery",
        "20 tasks of 0.2 s on two workers, of which one is killed: per task",
        MILLISECONDS,
        (
            Contender(OURS, "ours_farm:recovery:victim"),
            Contender("nobody killed", "ours_farm:recovery"),
        ),
        (AtMost(1, "nobody killed", seconds=(LONG + 0.5) / 20),),
        plan=Plan(rounds=5, operations=20),
        quick=Plan(rounds=2, operations=20),
    ),
)
