"""`_shipping`: which of the caller's modules other hosts get, and how they get there."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel import _shipping
from parallel._member import current_member
from parallel._shipping import Parcel, check_ship, pack_project
from parallel._surroundings import inherit
from parallel.errors import ParallelError, RemoteError
from parallel.launch.local import Local


@pytest.fixture(autouse=True)
def _nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The tests themselves are a project: leave them out, and the cache as well."""
    monkeypatch.setattr(_shipping, "_OURS", {*_shipping._OURS, "tests", "conftest"})
    monkeypatch.setattr(_shipping, "_classified", {})
    monkeypatch.setattr(_shipping, "_last", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("ship_"):
            del sys.modules[name]
    inherit(None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is imported from."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    return directory


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def held(parcel: Parcel | None) -> dict[str, str]:
    if parcel is None:
        return {}
    with tarfile.open(fileobj=io.BytesIO(zlib.decompress(parcel.read()))) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read().decode() for name, file in files.items() if file}


# What is shipped


def test_nothing_is_when_nothing_of_the_caller_s_own_is_imported() -> None:
    assert pack_project(True) is None


def test_modules_beside_the_program_are_once_they_have_been_imported(project: Path) -> None:
    (project / "ship_a.py").write_text("a = 1\n")
    (project / "ship_b.py").write_text("b = 1\n")
    assert pack_project(True) is None
    importlib.import_module("ship_a")
    parcel = pack_project(True)
    assert held(parcel) == {"ship_a.py": "a = 1\n"}
    assert parcel is not None
    assert parcel.project.names == ("ship_a",)
    importlib.import_module("ship_b")
    assert set(held(pack_project(True))) == {"ship_a.py", "ship_b.py"}


def test_a_package_is_as_a_whole_with_its_data_but_without_what_was_compiled(project: Path) -> None:
    package = project / "ship_pack"
    (package / "inner").mkdir(parents=True)
    (package / ".git").mkdir()
    for name in ("__init__.py", "inner/deep.py", "data.txt", ".git/x", "old.pyc"):
        (package / name).write_text("")
    importlib.import_module("ship_pack.inner.deep")
    assert (package / "__pycache__").exists() or sys.dont_write_bytecode
    expected = {"ship_pack/__init__.py", "ship_pack/inner/deep.py", "ship_pack/data.txt"}
    assert set(held(pack_project(True))) == expected


def test_a_package_without_an_init_is_too(project: Path) -> None:
    (project / "ship_space").mkdir()
    (project / "ship_space/part.py").write_text("")
    importlib.import_module("ship_space.part")
    assert set(held(pack_project(True))) == {"ship_space/part.py"}


def test_what_is_installed_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "lib/site-packages"
    installed.mkdir(parents=True)
    (installed / "ship_installed.py").write_text("")
    monkeypatch.syspath_prepend(installed)
    importlib.import_module("ship_installed")
    assert pack_project(True) is None


def test_a_module_that_the_program_made_itself_is_not() -> None:
    sys.modules["ship_made"] = type(sys)("ship_made")
    assert pack_project(True) is None


def test_it_is_packed_anew_only_when_a_file_changes(project: Path) -> None:
    (project / "ship_a.py").write_text("a = 1\n")
    importlib.import_module("ship_a")
    first = pack_project(True)
    assert first is not None
    assert pack_project(True) is first
    (project / "ship_a.py").write_text("a = 22\n")
    second = pack_project(True)
    assert second is not None
    assert second.project.digest != first.project.digest
    assert held(second) == {"ship_a.py": "a = 22\n"}


def test_too_much_is_an_error_that_names_the_directory(project: Path) -> None:
    (project / "ship_big").mkdir()
    (project / "ship_big/__init__.py").write_text("")
    with open(project / "ship_big/data", "wb") as file:
        file.truncate((64 << 20) + 1)
    importlib.import_module("ship_big")
    with pytest.raises(ParallelError, match=rf"64 MiB.*{project}/ship_big.*ship="):
        pack_project(True)


def test_false_ships_nothing(project: Path) -> None:
    (project / "ship_a.py").write_text("")
    importlib.import_module("ship_a")
    assert pack_project(False) is None


def test_a_list_of_names_and_paths_ships_just_those(project: Path, tmp_path: Path) -> None:
    for name in ("ship_a.py", "ship_b.py"):
        (project / name).write_text("")
    importlib.import_module("ship_a")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/data.txt").write_text("")
    parcel = pack_project(("ship_b", str(tmp_path / "other")))
    assert set(held(parcel)) == {"ship_b.py", "other/data.txt"}


WRONG = ["/no/such/place", "no_such.py", "no_such_module", "sys", "__main__", "", ".", "ship_made"]


@pytest.mark.parametrize("item", WRONG)
async def test_a_list_that_names_what_is_not_there_is_an_error_of_init(item: str) -> None:
    sys.modules["ship_made"] = type(sys)("ship_made")
    with pytest.raises(ParallelError, match=re.escape(f"{item!r}, which") + r".*names.*and paths"):
        async with parallel.init(ship=["tests", item]):
            raise AssertionError
    with pytest.raises(ParallelError, match=re.escape(repr(item))):
        pack_project((item,))


async def test_two_of_a_list_that_would_be_one_there_are_an_error_of_init(
    project: Path, tmp_path: Path
) -> None:
    write(project, ship_a_py="", here__ship_a_py="", here__ship_b__x_py="", there__ship_b__x_py="")
    for two in (["ship_a", "here/ship_a.py"], ["here/ship_b", "there/ship_b"]):
        items = [item if "/" not in item else f"{project}/{item}" for item in two]
        named = rf"names {items[0]!r} and {items[1]!r}, .* module '{two[0][-6:]}' on another host"
        with pytest.raises(ParallelError, match=named):
            async with parallel.init(ship=items):
                raise AssertionError
    assert check_ship(["ship_a", "ship_a", f"{project}/ship_a.py"])


@pytest.mark.parametrize("ship", ["ship_a", [Path("ship_a.py")]], ids=str)
async def test_a_list_is_one_of_strings(ship: Any) -> None:
    with pytest.raises(TypeError, match="ship takes"):
        async with parallel.init(ship=ship):
            raise AssertionError


def test_a_list_is_checked_without_an_import(project: Path) -> None:
    (project / "ship_broken.py").write_text("raise AssertionError")
    assert check_ship(["ship_broken", "ship_broken.part"]) == ("ship_broken", "ship_broken.part")
    assert check_ship([]) == ()


def test_a_worker_passes_on_what_it_was_sent(project: Path, tmp_path: Path) -> None:
    (project / "ship_a.py").write_text("")
    importlib.import_module("ship_a")
    parcel = pack_project(True)
    assert parcel is not None
    directory = tmp_path / "cache" / parcel.project.digest
    directory.mkdir(parents=True)
    (directory / ".archive").write_bytes(parcel.read())
    (directory / "ship_a.py").write_text("")
    del sys.modules["ship_a"]
    _shipping.receive(parcel.project, str(directory))
    importlib.import_module("ship_a")
    again = pack_project(True)
    assert again is not None
    assert (again.project, again.read()) == (parcel.project, parcel.read())
    (project / "ship_own.py").write_text("own = 1\n")
    importlib.import_module("ship_own")
    assert held(pack_project(True)) == {"ship_a.py": "", "ship_own.py": "own = 1\n"}
    sys.path.remove(str(directory))


# How it travels: a caller that believes to be on another host than its worker


@pytest.fixture
async def abroad(project: Path) -> AsyncIterator[None]:
    sys.path.remove(str(project))  # the workers do not look there
    async with parallel.init(grace=2.0):
        sys.path.insert(0, str(project))
        member = current_member()
        member.settings = member.settings._replace(host="elsewhere")
        yield


async def test_a_worker_on_another_host_is_sent_what_it_does_not_have(
    abroad: None, project: Path
) -> None:
    (project / "ship_a.py").write_text("def where(): return __file__\n")
    import ship_a  # type: ignore[import-not-found]

    found = Path(await parallel.run(ship_a.where, where="root"))
    assert found.name == "ship_a.py"
    assert found != project / "ship_a.py"
    before = os.stat(found.parent).st_ino
    assert Path(await parallel.run(ship_a.where, where="root")) == found
    assert os.stat(found.parent).st_ino == before


async def test_a_large_project_gets_there_as_well(abroad: None, project: Path) -> None:
    (project / "ship_large").mkdir()
    (project / "ship_large/__init__.py").write_text(
        "def size(): return len(open(__file__[:-11] + 'data', 'rb').read())\n"
    )
    (project / "ship_large/data").write_bytes(os.urandom(5 << 20))
    import ship_large  # type: ignore[import-not-found]

    assert await parallel.run(ship_large.size, where="root") == 5 << 20


async def test_a_worker_with_a_hub_is_sent_it_too(abroad: None, project: Path) -> None:
    lines = ["async def serve(hub):", " async for client, message in hub:"]
    lines.append("  await hub.send(client, message)")
    (project / "ship_hub.py").write_text("\n".join(lines))
    import ship_hub  # type: ignore[import-not-found]

    async with parallel.spawn(ship_hub.serve, where="root") as (channel, _):
        await channel.send(1)
        assert await channel.receive() == 1


async def test_a_cache_that_cannot_be_used_is_the_caller_s_to_know(
    abroad: None, project: Path, tmp_path: Path
) -> None:
    (project / "ship_a.py").write_text("def nothing(): pass\n")
    (tmp_path / "cache").write_text("no directory")
    import ship_a

    with pytest.raises(ParallelError, match="cache for the modules of the caller"):
        await parallel.run(ship_a.nothing, where="root")


async def test_a_worker_on_another_host_keeps_that_host_s_surroundings(
    abroad: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def look() -> tuple[Any, ...]:
        return os.environ.get("SET_LATER"), os.environ.get("NEW"), os.getcwd(), sys.path

    def umask() -> int:
        before = os.umask(0)
        os.umask(before)
        return before

    here, path = os.getcwd(), sys.path[1:]
    monkeypatch.setenv("SET_LATER", "yes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = os.umask(0o027)
    later, new, cwd, its_path = await parallel.run(look, where="root", env={"NEW": "new"})
    assert (later, new, cwd, its_path) == (None, "new", here, path)
    assert await parallel.run(os.getcwd, where="root", cwd=str(tmp_path)) == str(tmp_path)
    try:
        assert await parallel.run(umask, where="root") == before
    finally:
        os.umask(before)


# What another host gets. Functions by value: the host does not have this module.


def shipping(ship: bool | Sequence[str]) -> AbstractAsyncContextManager[None]:
    """Inside `init` with the hosts "other" and "third"."""
    hosts = [Local(name="other"), Local(name="third")]
    return parallel.init(cluster=parallel.Cluster(hosts), grace=2.0, ship=ship)


async def file_of(name: str, *route: str, **options: Any) -> Path:
    """Where the last host of a route finds a module; each asks the next."""

    def find() -> Path:
        return Path(str(importlib.import_module(name).__file__))

    call: Any = find
    for where in reversed(route):
        call = partial(parallel.run, call, where=where, **options)
    found: Path = await call()
    return found


@pytest.mark.slow
async def test_a_list_of_names_is_all_that_another_host_gets(project: Path, tmp_path: Path) -> None:
    for name in ("ship_a.py", "ship_b.py", "ship_pack/__init__.py", "ship_pack/part.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    importlib.import_module("ship_b")
    async with shipping(["ship_a", "ship_pack.part", "iniconfig"]):
        for name in ("ship_a", "ship_pack", "ship_pack.part", "iniconfig"):
            assert (await file_of(name, "other")).is_relative_to(tmp_path / "cache")
        with pytest.raises(ModuleNotFoundError, match="ship_b"):
            await file_of("ship_b", "other")


@pytest.mark.slow
async def test_paths_are_those_from_where_init_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["ship_tool.py", "libs/ship_lib/"]
    (tmp_path / "libs/ship_lib").mkdir(parents=True)
    (tmp_path / "libs/ship_lib/__init__.py").write_text("")
    (tmp_path / "ship_tool.py").write_text("")
    monkeypatch.chdir(tmp_path)
    async with shipping(paths):
        monkeypatch.chdir("/")
        for name, file in (("ship_tool", "ship_tool.py"), ("ship_lib", "ship_lib/__init__.py")):
            for route in (["other"], ["root", "other"]):
                found = await file_of(name, *route, cwd="/")
                assert found.is_relative_to(tmp_path / "cache")
                assert str(found).endswith(f"/{file}")


@pytest.mark.slow
async def test_without_shipping_nothing_is_sent(project: Path, tmp_path: Path) -> None:
    (project / "ship_a.py").write_text("def nothing(): pass\n")
    import ship_a

    async with shipping(False):
        before = sorted((tmp_path / "cache/parallel").iterdir())
        assert await parallel.run(lambda: 1, where="other") == 1
        with pytest.raises(ModuleNotFoundError, match="ship_a"):
            await file_of("ship_a", "other")
        with pytest.raises(RemoteError, match="ship_a"):
            await parallel.run(ship_a.nothing, where="other")
        assert sorted((tmp_path / "cache/parallel").iterdir()) == before


@pytest.mark.parametrize("ship", [True, ["ship_a"], "path"], ids=str)
@pytest.mark.slow
async def test_what_was_sent_is_passed_on_by_workers_that_were_started_there(
    project: Path, tmp_path: Path, ship: Any
) -> None:
    place = project / "ship_a.py"
    place.write_text("")
    importlib.import_module("ship_a")

    def find() -> str | None:
        return importlib.import_module("ship_a").__file__

    async def pass_on() -> str | None:
        place.unlink()  # as on a host that is another machine
        return await parallel.run(partial(parallel.run, find, where="third"))

    async with shipping([str(place)] if ship == "path" else ship):
        found = Path(str(await parallel.run(pass_on, where="other")))
    assert found.is_relative_to(tmp_path / "cache")
