"""`_host.cache`: archives on a host."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from parallel._host.cache import Cache, open_cache
from parallel._sources import make_archive

ONE = make_archive({"one/__init__.py": b"1", "one/deep/er.py": b"", "alone.py": b"2"})
is_root = os.geteuid() == 0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path))


def names(cache: Cache) -> set[str]:
    return set(os.listdir(cache.directory))


def test_what_is_stored_lies_there_unpacked(cache: Cache) -> None:
    assert cache.use(ONE.digest) is None
    path = Path(cache.store(ONE.digest, ONE.data))
    assert (path / "one/__init__.py").read_text() == "1"
    assert (path / "one/deep/er.py").read_text() == ""
    assert (path / "alone.py").read_text() == "2"
    assert cache.use(ONE.digest) == str(path)
    assert names(cache) == {ONE.digest}


def test_the_archive_itself_can_be_passed_on(cache: Cache) -> None:
    assert cache.archive(ONE.digest) is None
    cache.store(ONE.digest, ONE.data)
    assert cache.archive(ONE.digest) == ONE.data


@pytest.mark.parametrize("damaged", [ONE.data[:-1], b"", ONE.data + b"x", ONE.data[:-1] + b"x"])
def test_a_damaged_archive_is_refused_and_leaves_nothing(cache: Cache, damaged: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        cache.store(ONE.digest, damaged)
    assert names(cache) == set()


def test_an_archive_cannot_put_files_elsewhere(cache: Cache) -> None:
    for name in ("../outside.py", "/tmp/outside.py", "a/../../outside.py"):
        archive = make_archive({name: b""})
        with pytest.raises(ValueError, match="outside"):
            cache.store(archive.digest, archive.data)
    assert names(cache) == set()


def test_storing_twice_is_no_harm(cache: Cache) -> None:
    assert cache.store(ONE.digest, ONE.data) == cache.store(ONE.digest, ONE.data)
    assert names(cache) == {ONE.digest}


@pytest.mark.parametrize("damage", ["remove", "cut", "no index", "bad index"])
def test_an_entry_that_is_not_whole_counts_as_missing_and_is_replaced(
    cache: Cache, damage: str
) -> None:
    path = Path(cache.store(ONE.digest, ONE.data))
    if damage == "remove":
        (path / "alone.py").unlink()
    elif damage == "cut":
        (path / "one/__init__.py").write_text("")
    elif damage == "no index":
        (path / ".index").unlink()
    else:
        (path / ".index").write_text("[]")
    assert cache.use(ONE.digest) is None
    cache.store(ONE.digest, ONE.data)
    assert cache.use(ONE.digest) is not None
    assert names(cache) == {ONE.digest}


def test_two_at_once_end_up_with_one_entry(cache: Cache) -> None:
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(10):
                    cache.store(ONE.digest, ONE.data)
                    assert cache.use(ONE.digest)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert names(cache) == {ONE.digest}


def test_what_nobody_uses_for_a_month_is_removed(cache: Cache) -> None:
    others = [make_archive({"x.py": bytes([number])}) for number in range(3)]
    for archive in (ONE, *others):
        path = cache.store(archive.digest, archive.data)
        os.utime(path, (0, time.time() - 31 * 24 * 3600))
    Path(cache.directory, "new-leftover").mkdir()
    os.utime(Path(cache.directory, "new-leftover"), (0, 0))
    used, kept, unused = others
    assert cache.use(used.digest)
    cache.prune([kept.digest])
    assert names(cache) == {used.digest, kept.digest}
    assert unused.digest not in names(cache)


# Where it is


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def test_it_is_the_user_s_alone(home: Path) -> None:
    cache = open_cache()
    assert cache.directory == str(home / ".cache/parallel")
    assert stat.S_IMODE(os.stat(cache.directory).st_mode) == 0o700
    assert open_cache().directory == cache.directory


def test_xdg_cache_home_is_heeded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    assert open_cache().directory == str(home / "elsewhere/parallel")


def test_one_that_others_can_read_is_closed_to_them(home: Path) -> None:
    (home / ".cache/parallel").mkdir(parents=True, mode=0o755)
    assert stat.S_IMODE(os.stat(open_cache().directory).st_mode) == 0o700


def test_one_that_others_could_write_to_is_not_trusted(home: Path) -> None:
    (home / ".cache/parallel").mkdir(parents=True)
    (home / ".cache/parallel").chmod(0o770)
    with pytest.raises(PermissionError, match="others may write"):
        open_cache()


@pytest.mark.skipif(not is_root, reason="only root can give a directory away")
def test_one_that_somebody_else_has_put_there_is_not_trusted(home: Path) -> None:
    (home / ".cache/parallel").mkdir(parents=True, mode=0o700)
    os.chown(home / ".cache/parallel", 65534, 65534)
    with pytest.raises(PermissionError, match="not a directory of this user"):
        open_cache()


def test_nor_is_a_link(home: Path) -> None:
    (home / "elsewhere").mkdir(mode=0o700)
    (home / ".cache").mkdir()
    (home / ".cache/parallel").symlink_to(home / "elsewhere")
    with pytest.raises(PermissionError, match="not a directory of this user"):
        open_cache()
