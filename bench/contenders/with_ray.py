"""ray: an actor, reached through its object store; and tasks."""

from collections.abc import Iterator
from typing import Any

import ray  # type: ignore[import-not-found, import-untyped, unused-ignore]

from bench import payload, tasks
from bench.clock import timed
from bench.contenders import with_pools
from bench.turns import Turns


class Echo:
    """An actor that sends everything back."""

    def echo(self, message: Any) -> Any:
        """Return the argument."""
        return message


def array(turns: Turns) -> None:
    """Send an array to an actor and receive it back."""
    sent = payload.array()
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    actor = ray.remote(Echo).remote()
    for operations in turns:
        turns.report([timed(lambda: echo(actor, sent)) for _ in range(operations)])
    ray.shutdown()


def echo(actor: Any, sent: payload.Array) -> None:
    """Send an array and check what comes back."""
    payload.check(sent, ray.get(actor.echo.remote(sent)))


def noops(turns: Turns) -> None:
    """Call a remote no-op; results as they come."""
    ray.init(
        num_cpus=tasks.WORKERS, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    remote = ray.remote(tasks.nothing)

    def run(task: tasks.Task) -> None:
        _, xs = task
        with_pools.exhaust(as_they_come([remote.remote(x) for x in xs]), len(xs))

    with_pools.take(turns, run, with_pools.noops)
    ray.shutdown()


def as_they_come(pending: list[Any]) -> Iterator[Any]:
    """Results, as many at a time as are there."""
    while pending:
        done, pending = ray.wait(pending, num_returns=min(len(pending), 100), timeout=1.0)
        yield from ray.get(done)
