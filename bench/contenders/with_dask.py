"""Dask: a client of a cluster on this machine."""

from distributed import Client, LocalCluster, as_completed  # type: ignore[import-not-found]

from bench import tasks
from bench.contenders import with_pools
from bench.turns import Turns


def noops(turns: Turns) -> None:
    """Map a no-op; results as they come."""
    cluster = LocalCluster(tasks.WORKERS, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:

        def run(task: tasks.Task) -> None:
            fn, xs = task
            futures = client.map(fn, xs, pure=False)
            with_pools.exhaust(as_completed(futures), len(xs))

        with_pools.take(turns, run, with_pools.noops)
