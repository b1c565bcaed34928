"""After every test nothing is left: no process, no descriptor."""

from __future__ import annotations

import gc
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from . import elsewhere, one_tree, support
from .connections import Pair, connected
from .servers import require, require_packages
from .servers.slurm import Slurm, open_slurm


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is promised of one host, on another: see `elsewhere`."""
    parser.addoption("--elsewhere", action="store_true", help="run processes on another host")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Elsewhere, leave out what is about this host."""
    if config.getoption("--elsewhere"):
        here = [item for item in items if not elsewhere.concerns(item)]
        config.hook.pytest_deselected(items=here)
        items[:] = [item for item in items if elsewhere.concerns(item)]
    shared = [item for item in items if one_tree.is_shared(item)]
    for item in shared:
        item.add_marker(pytest.mark.trio(run=one_tree.run), append=False)
    # So that those with the same tree follow each other.
    items.sort(key=lambda item: (item not in shared, one_tree.hosts_of(item)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: without it the collections below take 2 ms instead of 80."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip before the test begins: out of a trio test the reason of a skip is lost."""
    for needs in item.iter_markers("needs"):
        require(*needs.args, root=True)
    for packages in item.iter_markers("packages"):
        require_packages(*packages.args)


@pytest.fixture(autouse=True)
def _elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the processes of the test on another host, if that was asked for."""
    if request.config.getoption("--elsewhere"):
        elsewhere.use(monkeypatch)
    yield
    elsewhere.stop()


@pytest.fixture(autouse=True)
def _one_tree(_elsewhere: None, request: pytest.FixtureRequest) -> None:
    """Have the tree that tests have in common, or none."""
    is_shared = one_tree.is_shared(request.node)
    one_tree.prepare(one_tree.hosts_of(request.node) if is_shared else None)


@pytest.fixture(scope="session", autouse=True)
def _no_tree_in_the_end() -> Iterator[None]:
    yield
    one_tree.prepare(None)


@pytest.fixture(autouse=True)
def mark(_one_tree: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The mark of this test's processes; afterwards there must be none, and no descriptor more."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(support.MARK, mark)
    monkeypatch.setenv("PYTHON_COLORS", "0")  # tracebacks are compared as text
    before = support.open_descriptors()
    yield mark
    left = support.wait_until_gone(mark, 1.0)
    support.kill_all(left)
    assert not left, f"processes left behind: {left}"
    gc.collect()
    after = support.open_descriptors()
    new = {number: what for number, what in after.items() if before.get(number) != what}
    assert len(after) <= len(before), f"descriptors left open: {new}"


@pytest.fixture
async def tree(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Inside `parallel.init`: what other tests have in common, or one of the test's own."""
    if one_tree.is_open():
        yield
    else:
        async with one_tree.init_with(one_tree.hosts_of(request.node)):
            yield


@pytest.fixture(scope="session")
def shared_slurm() -> Iterator[Slurm]:
    """One Slurm cluster for all tests, for it takes a second to start."""
    with open_slurm() as slurm:
        yield slurm


@pytest.fixture
def slurm(shared_slurm: Slurm) -> Iterator[Slurm]:
    """A Slurm cluster. Leave nothing in it, and its daemons alive: to kill them, start your own."""
    yield shared_slurm
    shared_slurm.clear()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """The two ends of a connection, without a tree."""
    with connected() as both:
        yield both


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes small file systems: `mount("size=64k")`."""
    mounted = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mount{len(mounted)}"
        place.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.geteuid() or subprocess.run(argv, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount file systems, and not everywhere")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def no_coredump() -> Iterator[None]:
    """For tests that crash on purpose."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
    os.environ.setdefault("PYTHONFAULTHANDLER", "")
    yield
    resource.setrlimit(resource.RLIMIT_CORE, limits)
