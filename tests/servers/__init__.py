"""Real servers, started by the tests in temporary directories and gone afterwards.

`.ci/servers` installs what they need. A test that needs what is not there skips and says so; with
PARALLEL_SERVERS=required it fails. An async test has to carry the mark `needs`, as in
`@pytest.mark.needs("sshd")`, for its reason to be seen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Never

import pytest

REQUIRED = os.environ.get("PARALLEL_SERVERS") == "required"

SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Where programs are looked for: an ordinary user's PATH lacks those of the administrator."""


def program(name: str) -> str:
    """The path of a program. Without it the test cannot run."""
    return shutil.which(name, path=SEARCHED) or _cannot_run(f"the program {name}")


def require(*programs: str, root: bool = False) -> None:
    """Skip this test, or fail where skipping is forbidden, if any of these is not there."""
    missing = [f"the program {name}" for name in programs if not shutil.which(name, path=SEARCHED)]
    if root and os.geteuid() != 0:
        missing.append("the rights of root")
    if missing:
        _cannot_run(", ".join(missing))


def require_packages(*modules: str) -> None:
    """Skip this test, or fail where skipping is forbidden, if any of these cannot be imported."""
    missing = [f"the package {name}" for name in modules if find_spec(name) is None]
    if missing:
        _cannot_run(", ".join(missing), "pip install -e '.[dev]'")


def _cannot_run(missing: str, mend: str = ".ci/servers installs servers, as root") -> Never:
    report: Callable[[str], Never] = pytest.fail if REQUIRED else pytest.skip
    report(f"missing: {missing} ({mend})")
