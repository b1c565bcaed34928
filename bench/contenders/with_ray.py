"""ray: an actor, reached through its object store."""

from typing import Any

import ray  # type: ignore[import-not-found, import-untyped, unused-ignore]

from bench import payload
from bench.clock import timed
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
