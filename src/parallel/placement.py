"""Where a process shall run: from the hosts' state to a host's name.

A placement is any callable that takes the hosts (a tuple of `Host`) and returns a name. Those here
know of slots and of what runs; slots inform them, they never limit.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias


class Host(NamedTuple):
    """A host of the cluster.

    `slots` is how many processes it is meant for at once, `python` its version, `running` how many
    run there now. `down` says why it is not there, and is "" of one that is.
    """

    name: str
    slots: int
    python: str
    running: int
    down: str = ""


Placement: TypeAlias = Callable[[Sequence[Host]], str]


def random(hosts: Sequence[Host]) -> str:
    """Any host, each as likely as its slots."""
    return _random.choices(hosts, [max(host.slots, 1) for host in hosts])[0].name


def random_in(names: Sequence[str]) -> Placement:
    """Any host of these, each as likely."""
    choices = list(names)
    if not choices:
        raise ValueError("random_in needs at least one host's name")

    def choose(hosts: Sequence[Host]) -> str:
        return _random.choice(choices)

    return choose


_turn: int | None = None


def round_robin(hosts: Sequence[Host]) -> str:
    """One host after the other; each process counts for itself, from a random start."""
    global _turn
    _turn = _random.randrange(len(hosts)) if _turn is None else _turn + 1
    return hosts[_turn % len(hosts)].name


def least_loaded(hosts: Sequence[Host]) -> str:
    """The host with the fewest running processes per slot."""
    return min(hosts, key=lambda host: host.running / max(host.slots, 1)).name
