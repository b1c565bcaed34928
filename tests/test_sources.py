"""`_sources`: what a host is sent at its start."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest

from parallel import _sources
from parallel._sources import make_archive, needed_archive, package_files
from parallel.errors import ParallelError


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(zlib.decompress(data))) as tar:
        return tar.getnames()


def test_the_same_files_make_the_same_archive_whatever_their_order() -> None:
    one = make_archive({"a.py": b"1", "b/c.py": b"2"})
    assert one.digest == make_archive({"b/c.py": b"2", "a.py": b"1"}).digest
    assert one.digest == hashlib.sha256(zlib.decompress(one.data)).hexdigest()
    assert one.data is one.data
    assert one.digest != make_archive({"a.py": b"1", "b/c.py": b"3"}).digest


def test_it_is_made_once_and_again_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first = needed_archive()
    assert needed_archive() is first
    monkeypatch.setattr(_sources, "_needed", [])
    assert needed_archive().digest == first.digest


def test_it_holds_python_alone_and_no_tests() -> None:
    held = names(needed_archive().data)
    assert "parallel/_host/loader.py" in held
    assert all(name.endswith(".py") for name in held)
    assert not [name for name in held if "/tests/" in name or "/_tests/" in name]


def test_with_it_a_bare_python_runs_a_host_s_programs(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(zlib.decompress(needed_archive().data))) as tar:
        tar.extractall(tmp_path, filter="fully_trusted")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import parallel, parallel._host.forkserver, parallel._host.worker, parallel.launch.local
for name in dir(parallel):
    getattr(parallel, name)
print({{name.partition(".")[0] for name, module in sys.modules.items()
    if not (getattr(module, "__file__", None) or "").startswith({str(tmp_path)!r})
    and name.partition(".")[0] not in sys.stdlib_module_names}})
"""
    python = [sys.executable, "-I", "-S", "-c", code]
    said = subprocess.run(python, capture_output=True, text=True, check=True)
    assert said.stdout.strip() in ("{'__main__'}", "set()")


def test_what_is_not_there_as_files_is_named() -> None:
    with pytest.raises(ParallelError, match="no_such_package"):
        package_files("no_such_package")
