"""`_host.projects`: a host that does not have a module says so, and what would mend it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

import parallel
from parallel.launch.local import Local

from .support import in_turn


@pytest.fixture
async def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Inside `init` with the hosts "other" and "third", which are sent nothing."""
    (tmp_path / "project").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "project")
    cluster = parallel.Cluster([Local(name="other"), Local(name="third")])
    async with parallel.init(cluster=cluster, grace=2.0, ship=False):
        yield


def advice(host: str, module: str, name: str) -> str:
    return (
        f"host {host!r} has no module {module!r}: install it for {sys.executable} there, or have "
        "it sent: init(ship=True) sends what has been imported before the call, "
        f"init(ship=[{name!r}, ...]) what it names"
    )


async def test_a_task_that_needs_a_module_that_is_not_there(hosts: None, tmp_path: Path) -> None:
    (tmp_path / "project/missing_there.py").write_text("def nothing(): pass\n")
    import missing_there  # type: ignore[import-not-found]

    for host in ("other", "third"):
        with pytest.raises(parallel.RemoteError) as failed:
            await parallel.run(missing_there.nothing, where=host)
        assert failed.value.type_name == "ModuleNotFoundError"
        assert failed.value.text == (
            "the task 'nothing' could not be unpickled here: ModuleNotFoundError: No module named "
            f"'missing_there'; {advice(host, 'missing_there', 'missing_there')}"
        )
    del sys.modules["missing_there"]


async def notes_of(call: partial[object]) -> list[str]:
    """Of the error in which a call ends."""
    with pytest.raises(ModuleNotFoundError) as failed:
        await call()  # type: ignore[misc]
    assert type(failed.value) is ModuleNotFoundError
    return getattr(failed.value, "__notes__", [])


async def test_an_import_in_a_function_that_is_not_there(hosts: None) -> None:
    def find() -> object:
        return importlib.import_module("no_such.part")

    def find_and_group() -> None:
        try:
            find()
        except ModuleNotFoundError as exc:
            raise ExceptionGroup("tasks", [exc]) from None

    there = partial(parallel.run, find, where="other")
    assert await notes_of(there) == [advice("other", "no_such", "no_such")]
    with pytest.raises(ExceptionGroup) as failed:
        await parallel.run(find_and_group, where="other")
    assert failed.value.exceptions[0].__notes__ == [advice("other", "no_such", "no_such")]


async def test_a_part_that_an_older_package_does_not_have(hosts: None) -> None:
    def find() -> object:
        return importlib.import_module("json.newer")

    there = partial(parallel.run, find, where="other")
    assert await notes_of(there) == [advice("other", "json.newer", "json")]


@in_turn(
    "route, named",
    [
        (["other", "third"], "third"),
        (["other", "other"], "other"),
        (["other", "third", "third", "other"], "other"),
        (["other", "root"], "root"),
        (["other", "root", "root"], "root"),
        (["root", "root"], None),
    ],
)
async def test_it_is_told_once_by_the_host_that_lacks_it(
    hosts: None, route: list[str], named: str | None
) -> None:
    call = partial(importlib.import_module, "no_such")
    for where in reversed(route):
        call = partial(parallel.run, call, where=where)
    assert await notes_of(call) == ([advice(named, "no_such", "no_such")] if named else [])


async def test_what_a_function_raises_itself_is_explained_only_where_it_can_be(hosts: None) -> None:
    def fail() -> None:
        exc = ModuleNotFoundError("something", name=5)  # type: ignore[arg-type]
        exc.__notes__ = ["its own"]
        raise exc

    def fail_with_odd_notes() -> None:
        exc = ModuleNotFoundError("something", name="no_such")
        exc.__notes__ = "no list"  # type: ignore[assignment]
        raise exc

    assert await notes_of(partial(parallel.run, fail, where="other")) == ["its own"]
    assert await notes_of(partial(parallel.run, fail_with_odd_notes, where="other")) == []
