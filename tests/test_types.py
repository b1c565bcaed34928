"""What type checkers see of the package; `make check` lets them look at the same file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import parallel

ASSERTIONS = Path(__file__).with_name("typing_assertions.py")
PROJECT = ASSERTIONS.parents[1]


def check(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command, str(ASSERTIONS)],
        cwd=PROJECT,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@pytest.mark.slow
@pytest.mark.skipif(not there("mypy"), reason="mypy is not installed here")
def test_mypy_infers_what_users_expect() -> None:
    check("mypy", "--strict")


@pytest.mark.slow
@pytest.mark.skipif(not there("pyright"), reason="pyright is not installed here")
def test_pyright_infers_what_users_expect() -> None:
    check("pyright", "--pythonpath", sys.executable)


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(parallel.__file__).with_name("py.typed").exists()
