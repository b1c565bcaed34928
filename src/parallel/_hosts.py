"""The other hosts of a running cluster, as the root has them: through its agent.

1. The first host starts the root's agent: a worker like any other, but that it ends last.
2. `Launcher.prepare` is entered here, and what it gives is sent to the agent with an `Add`.
3. The agent says `Added`, or `Failed` and why; later, when the host is gone, `Ended`.
4. `Remove`, or the end of the channel to the agent, ends hosts.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import AsyncExitStack
from importlib import import_module

import trio
from trio.lowlevel import enable_ki_protection

from ._directory import check_name
from ._member import Member
from ._orders import Add, Added, Ended, Failed, Miss, Order, Remove, Reply
from ._own_host import PATIENCE
from ._service import Service, start_service
from ._settings import HostSettings
from ._showcase import AGENT
from ._table import HostWriter, read_hosts
from .abc import Allocation, Launcher
from .errors import HostDied, ParallelError


class _Host:
    """A host from the moment it is asked for."""

    def __init__(self, number: int, launcher: Launcher) -> None:
        self.number = number
        self.launcher = launcher
        self.service: Service[Order, Reply] | None = None
        """The agent that was told to start it."""
        self.started = trio.Event()
        """Or it never will be."""
        self.ended = trio.Event()
        self.error: BaseException | None = None
        self.sent = 0
        self.left = trio.Event()
        """Nothing of it is left in this process."""

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        self.started.set()
        self.ended.set()


class Hosts:
    """Those that were added, and the agent that has them."""

    def __init__(
        self, member: Member, settings: HostSettings, heartbeat: float, label_output: bool
    ) -> None:
        self._member = member
        self._settings = settings
        self._heartbeat = heartbeat
        self._label_output = label_output
        self._service: Service[Order, Reply] | None = None
        self._hosts: dict[int, _Host] = {}
        self._last = 0
        self._starting = trio.Lock()
        self._ending = trio.Event()
        self._allocations: list[trio.Event] = []

    # What `init` and `Cluster` call

    async def start(self, sources: Sequence[Launcher | Allocation], *, skip_missing: bool) -> None:
        """Start them all at once.

        Those that fail are raised together; or skipped, and noted with the reason.
        """
        errors: list[Exception] = []

        @enable_ki_protection
        async def start(source: Launcher | Allocation, number: int) -> None:
            try:
                if isinstance(source, Allocation):
                    launchers = await self._allocate(source)
                    await self.start(launchers, skip_missing=skip_missing)
                else:
                    await self.add(source, number)
            except* Exception as group:
                # An allocation that fails has no host that could be missed.
                if skip_missing and isinstance(source, Launcher) and not self._has(source.name):
                    await self._miss(source, number, str(_leaves(group)[0]))
                errors.extend(_leaves(group))

        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(start, source, self._next_number())
        if errors and not skip_missing:
            raise ExceptionGroup("some hosts could not be started", errors)

    def _next_number(self) -> int:
        self._last += 1
        return self._last

    async def _miss(self, launcher: Launcher, number: int, reason: str) -> None:
        """Let everybody know that a host is not there."""
        host = self._hosts[number] = _Host(number, launcher)
        try:
            await self._tell(Miss(host.number, launcher.name, reason))
            await host.started.wait()
        finally:
            self._forget(host)

    async def add(self, launcher: Launcher, number: int | None = None) -> int:
        """Start one more; how many bytes it was sent for that. Raises why it could not be."""
        await self._ensure_service()
        for old in self._named(launcher.name):
            if old.started.is_set() and self._is_down(launcher.name):
                await old.ended.wait()  # what led there is still being taken down
        # Those of an allocation have names that nobody knew before.
        check_name(launcher.name, (launcher.name,) if self._has(launcher.name) else ())
        host = _Host(number or self._next_number(), launcher)
        self._hosts[host.number] = host
        trio.lowlevel.spawn_system_task(self._keep, host, name=f"parallel: host {launcher.name}")
        try:
            await host.started.wait()
        except BaseException:
            await self._remove(host)  # noqa: ASYNC102  # shielded, and bounded
            raise
        if host.error is not None:
            raise host.error
        return host.sent

    def _has(self, name: str) -> bool:
        """Whether there is a host of that name, or on its way."""
        return any(not host.ended.is_set() for host in self._named(name))

    def _named(self, name: str) -> list[_Host]:
        return [host for host in self._hosts.values() if host.launcher.name == name]

    def _is_down(self, name: str) -> bool:
        """Whether the others know of it as one that is gone."""
        return any(host.name == name and host.down for host in read_hosts(self._member.table))

    async def remove(self, name: str) -> None:
        """End a host; its processes are cancelled."""
        for host in list(self._hosts.values()):
            if host.launcher.name == name:
                await self._remove(host)

    async def end(self) -> None:
        """End all of them, and the agent."""
        self._ending.set()
        service = self._service
        if service is not None:
            service.channel.close()
            with trio.move_on_after(self._settings.grace + 2 * PATIENCE):
                await service.process.wait()
            service.child.cancel(0.0)
            await service.process.wait()
        for host in list(self._hosts.values()):
            host.fail(HostDied(host.launcher.name, "its program has left init"))
        for host in list(self._hosts.values()):
            await host.left.wait()
        for left in self._allocations:
            await left.wait()

    # The agent

    async def _ensure_service(self) -> Service[Order, Reply]:
        async with self._starting:
            service = self._service
            if service is None or not service.process.is_running:
                service = await self._start_service()
            return service

    async def _start_service(self) -> Service[Order, Reply]:
        here = self._settings
        self._service = service = await start_service(
            # Only a program with other hosts needs what this brings along.
            import_module("._root_agent", __package__).serve,
            here.root_pid,
            here.slots,
            self._label_output,
            name=AGENT,
        )
        trio.lowlevel.spawn_system_task(self._listen, service, name="parallel: agent's replies")
        return service

    async def _tell(self, order: Order) -> Service[Order, Reply]:
        """Say it to the agent; to a new one if the old one has died."""
        while True:
            service = await self._ensure_service()
            try:
                await service.channel.send(order)
                return service
            except trio.BrokenResourceError:
                await service.process.wait()

    async def _listen(self, service: Service[Order, Reply]) -> None:
        try:
            async for reply in service.channel:
                host = self._hosts.get(reply.number)
                if host is not None:
                    _handle(host, reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        service.channel.close()
        ending = await service.process.wait()
        reason = f"the agent that had it is gone: {ending.error}"
        lost = [host for host in self._hosts.values() if host.service is service]
        self._note_down({host.launcher.name for host in lost}, reason)
        for host in lost:
            host.fail(HostDied(host.launcher.name, reason))

    def _note_down(self, names: Set[str], reason: str) -> None:
        """What the agent does for each host that is gone, for all of its own when it is gone."""
        if names:
            table = self._member.table
            states = [host for host in read_hosts(table) if host.name in names and not host.down]
            HostWriter(table).write(host._replace(running=0, down=reason) for host in states)

    # One host

    async def _keep(self, host: _Host) -> None:
        """Enter what has to stay in this process, and stay until the host is gone."""
        try:
            async with AsyncExitStack() as stack:
                launcher = await stack.enter_async_context(host.launcher.prepare())
                if not host.ended.is_set():
                    order = Add(host.number, launcher, self._config(host.launcher))
                    host.service = await self._tell(order)
                    if host.ended.is_set():  # it was removed meanwhile
                        await host.service.channel.send(Remove(host.number))
                await host.ended.wait()
        except Exception as exc:  # of a launcher, which is anybody's code; whoever waits raises it
            host.fail(_leaves(exc)[0])
        finally:
            self._forget(host)
            host.left.set()

    def _forget(self, host: _Host) -> None:
        if self._hosts.get(host.number) is host:  # a missing one is noted under the same number
            del self._hosts[host.number]

    def _config(self, launcher: Launcher) -> dict[str, object]:
        settings = self._settings._replace(
            host=launcher.name, slots=launcher.slots or 0, forward_output=True
        )
        return {"settings": settings._asdict(), "heartbeat": self._heartbeat}

    async def _remove(self, host: _Host) -> None:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self._settings.grace + PATIENCE):
                try:
                    if host.service is not None:
                        await host.service.channel.send(Remove(host.number))
                        await host.ended.wait()
                except (trio.BrokenResourceError, ParallelError):
                    pass  # the agent is gone, and the host with it
            host.fail(HostDied(host.launcher.name, "it was removed"))
            await host.left.wait()

    async def _allocate(self, allocation: Allocation) -> Sequence[Launcher]:
        """Hold it until the end of `init`."""
        got: list[Sequence[Launcher]] = []
        errors: list[BaseException] = []
        ready, left = trio.Event(), trio.Event()
        scope = trio.CancelScope()

        async def hold() -> None:
            try:
                with scope:
                    async with allocation.allocate() as launchers:
                        got.append(launchers)
                        ready.set()
                        await self._ending_hosts()
            except Exception as exc:  # anybody's code; raised below
                errors.append(exc)
            finally:
                ready.set()
                left.set()

        self._allocations.append(left)
        trio.lowlevel.spawn_system_task(hold, name="parallel: an allocation")
        try:
            await ready.wait()
        except BaseException:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await left.wait()
            raise
        if not got:
            raise _leaves(errors[0])[0] if errors else ParallelError(f"{allocation!r} gave no host")
        return got[0]

    async def _ending_hosts(self) -> None:
        """Until `end`, and the agent has let go of what it had there."""
        await self._ending.wait()
        for host in list(self._hosts.values()):
            await host.left.wait()


def _handle(host: _Host, reply: Reply) -> None:
    match reply:
        case Added(_, sent):
            host.sent = sent
            host.started.set()
        case Failed(_, error):
            host.fail(error)
        case Ended(_, reason):
            host.fail(HostDied(host.launcher.name, reason))


def _leaves(error: BaseException) -> list[Exception]:
    """The exceptions in a group, or the only one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in _leaves(member)]
    assert isinstance(error, Exception)
    return [error]
