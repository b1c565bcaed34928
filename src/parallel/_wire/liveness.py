"""Pure: when the silence of a link means that it is dead."""

from __future__ import annotations

PINGS = 3
"""So many pings within a heartbeat."""

LATE = 0.5
"""Seconds: who comes to look so much later than was agreed has been stopped meanwhile."""

MOMENT = 0.1
"""Seconds until the second look, in which what has arrived is read."""


class Silence:
    """For how long nothing has come, not counting time in which the judge itself stood still.

    A judge who was stopped (by SIGSTOP, a debugger, a busy machine) cannot tell what it would have
    heard meanwhile; it starts anew, with half of the time.
    """

    def __init__(self, heartbeat: float, now: float) -> None:
        self.heartbeat = heartbeat
        self._deadline = now + heartbeat
        self._suspicious = False

    def heard(self, now: float) -> None:
        """Something has come."""
        self._deadline = now + self.heartbeat
        self._suspicious = False

    def look(self, now: float) -> float | None:
        """Seconds until the next look; None: the link is dead."""
        late = now - self._deadline
        if late < 0:
            self._suspicious = False
            return -late
        if late > LATE:
            self._deadline = now + self.heartbeat / 2
        elif self._suspicious:
            return None
        else:
            self._suspicious = True
            self._deadline = now + MOMENT
        return self._deadline - now
