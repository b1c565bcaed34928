"""Stands where an agent would: says what it found, then echoes what it reads."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any


def main(reading: int, writing: int, config: dict[str, Any]) -> None:
    import trio

    import parallel

    found = {
        "config": config,
        "trio": trio.__file__,
        "parallel": parallel.__file__,
        "path": sys.path,
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "stdin": stat.S_ISCHR(os.fstat(0).st_mode),
        "stdout is stderr": os.path.samestat(os.fstat(1), os.fstat(2)),
        "inheritable": [os.get_inheritable(reading), os.get_inheritable(writing)],
        "pid": os.getpid(),
    }
    os.write(writing, json.dumps(found).encode() + b"\n")
    print("this is no part of the link", flush=True)
    os.system("echo nor is this")
    while data := os.read(reading, 1 << 16):
        os.write(writing, data)


def fail(reading: int, writing: int, config: dict[str, Any]) -> None:
    raise ZeroDivisionError
