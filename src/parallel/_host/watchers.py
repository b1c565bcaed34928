"""Pure: watchers: who wants to hear of the end of which process, and what each is told.

A process of this host tells its own end; of one elsewhere the agent hears, or that its host is
gone. The last dead of this host are remembered, for who asks late.
"""

from __future__ import annotations

from collections import OrderedDict

from .._wire.requests import Gone, HostDown
from .instruction import Instruction, Send

_REMEMBERED = 1000
"""So many of the dead."""


class Watchers:
    """Those of a host's processes who watch others, here and elsewhere."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._here: dict[int, set[int]] = {}
        self._elsewhere: dict[tuple[str, int], set[int]] = {}
        self._fates: OrderedDict[int, Gone] = OrderedDict()

    # Of this host's processes

    def watch(self, watcher: int, number: int) -> None:
        """It wants to hear of a process that lives."""
        self._here.setdefault(number, set()).add(watcher)

    def died(self, fate: Gone) -> list[Instruction]:
        """A process is dead: who watches it is told now, who asks later will be."""
        self._fates[fate.process] = fate
        if len(self._fates) > _REMEMBERED:
            self._fates.popitem(last=False)
        return [Send(watcher, fate) for watcher in self._here.pop(fate.process, ())]

    def fate(self, number: int) -> Gone:
        """What became of a process that does not live; it may be forgotten, or never have been."""
        unknown = Gone(self.host, number, 0, "", None, False, False)
        return self._fates.get(number, unknown)

    # Of other hosts'

    def watch_elsewhere(self, watcher: int, host: str, number: int) -> None:
        """It wants to hear of a process there."""
        self._elsewhere.setdefault((host, number), set()).add(watcher)

    def gone(self, fate: Gone) -> list[Instruction]:
        """A process there is dead."""
        watchers = self._elsewhere.pop((fate.host, fate.process), ())
        return [Send(watcher, fate) for watcher in watchers]

    def host_down(self, down: HostDown) -> list[Instruction]:
        """A host is gone, and whatever was watched there."""
        instructions: list[Instruction] = []
        for key in [key for key in self._elsewhere if key[0] == down.host]:
            instructions += [Send(watcher, down) for watcher in self._elsewhere.pop(key)]
        return instructions

    def hosts(self) -> set[str]:
        """Where something is watched that is not of this host."""
        return {host for host, _ in self._elsewhere}
