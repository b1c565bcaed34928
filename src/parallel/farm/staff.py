"""A farm's staff: keeps a worker in every place, and another where one was lost."""

from __future__ import annotations

import itertools
from collections import Counter

import trio

from ..errors import ParallelError
from .deployment import Deployment, Setup, WorkerLost
from .desk import Desk
from .engine import Engine
from .results import NoWorkers
from .tasks import Kind

ROUND = 0.5
"""Seconds after which the deployment is asked again for its places."""

TRIES = 5
"""Workers one after the other that may be lost while they start."""


class _Post:
    """One place that has a worker, or is about to."""

    def __init__(self, place: str, kind: Kind) -> None:
        self.place = place
        self.kind = kind
        self.is_kept = True
        """When its worker ends there shall be another."""
        self.is_regular = False
        """The deployment asks for it; else somebody hired it, and hears of what is wrong."""
        self.lost: BaseException | None = None
        """How its last worker ended."""
        self.starting = trio.CancelScope()
        """Around a worker that is not ready yet."""
        self.worker: str | None = None
        self.came = trio.Event()
        self.gone = trio.Event()


class Staff:
    """The posts of a farm."""

    def __init__(
        self, engine: Engine, deployment: Deployment, setup: Setup | None, nursery: trio.Nursery
    ) -> None:
        self._engine = engine
        self._deployment = deployment
        self._setup = setup
        self._nursery = nursery
        self._posts: list[_Post] = []
        self._regular: Counter[str] = Counter()
        """Posts by place, of those that the deployment has asked for, ended ones too."""
        self._numbers = itertools.count()
        self._closing = False

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Fill the deployment's places, also those that come later."""
        while not self._closing:
            await trio.sleep(ROUND)
            try:
                self.fill()
            except Exception as exc:
                self._engine.break_down(exc)

    def fill(self) -> None:
        """Have as many posts as the deployment has places, and no more."""
        places = Counter(self._deployment.places())
        for place, count in places.items():
            while self._regular[place] < count:
                self._regular[place] += 1
                self.add(place, Kind.INTERMINGLED).is_regular = True
        for post in reversed(self._posts):
            if post.is_regular and self._regular[post.place] > places[post.place]:
                self._regular[post.place] -= 1
                post.is_regular = post.is_kept = False
                if post.place not in places:  # most often its worker hears of that by itself
                    post.lost = WorkerLost(f"there is no place on {post.place} any more")
                self._let_go(post)
        for place in set(self._regular) - set(places):
            del self._regular[place]  # if it comes again, its workers do too

    def add(self, place: str, kind: Kind) -> _Post:
        """One more worker there."""
        post = _Post(place, kind)
        self._posts.append(post)
        self._nursery.start_soon(self._keep, post, name=f"farm: a place on {place}")
        return post

    async def hire(self, place: str, kind: Kind) -> str:
        """One more worker there; its name, when it is ready."""
        post = self.add(place, kind)
        await post.came.wait()
        if post.worker is None:
            raise post.lost or NoWorkers(place)
        return post.worker

    async def remove(self, name: str) -> None:
        """Let this worker go when it has done what it is at; returns when it is gone."""
        for post in self._posts:
            if post.worker == name:
                post.is_kept = False
                self._engine.retire(name)
                await post.gone.wait()
                return
        known = ", ".join(sorted(post.worker for post in self._posts if post.worker))
        raise ParallelError(f"there is no worker {name!r}; those that there are: {known}")

    async def close(self) -> None:
        """Let all go; returns when they are gone."""
        self._closing = True
        for post in list(self._posts):
            post.is_kept = False
            self._let_go(post)
        for post in list(self._posts):
            await post.gone.wait()

    def _let_go(self, post: _Post) -> None:
        """Its worker ends what it is at, and goes."""
        if post.worker is not None:
            self._engine.retire(post.worker)
        else:
            post.starting.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _keep(self, post: _Post) -> None:
        tries = 0
        try:
            while post.is_kept and tries < TRIES:
                came = await self._employ(post)
                post.worker = None
                tries = 0 if came else tries + 1
                if post.lost is not None and post.place not in self._deployment.places():
                    if post.is_regular:
                        self._regular[post.place] -= 1  # there may be one again before anyone looks
                        post.is_regular = False
                    break
        except Exception as exc:  # of `setup`, or of a place that there is not
            post.lost = exc
            if post.is_regular or post.came.is_set():
                self._engine.break_down(exc)
        finally:
            self._posts.remove(post)
            post.came.set()
            post.gone.set()
        if post.lost is not None and not self._posts and not self._closing:
            error = NoWorkers(post.place)
            error.__cause__ = post.lost
            self._engine.fail(error)

    async def _employ(self, post: _Post) -> bool:
        """A worker from its start to its end; whether it ever was ready."""
        name = f"{post.place}.{next(self._numbers)}"
        desk: Desk | None = None
        post.lost = None
        try:
            with trio.CancelScope() as scope:
                post.starting = scope
                async with self._deployment.start(post.place, name, self._setup) as seat:
                    if not post.is_kept:
                        return True
                    post.worker = name
                    post.came.set()
                    desk = Desk(self._engine, seat, name, post.place, scope)
                    self._engine.join(desk, post.kind)
                    await desk.work()
        except (WorkerLost, trio.EndOfChannel, trio.BrokenResourceError) as exc:
            post.lost = exc.__cause__ or exc
        finally:
            if desk is not None:
                self._engine.leave(desk, post.lost)
        return desk is not None
