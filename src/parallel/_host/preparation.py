"""What a fork server does before its first fork, so that every worker finds it done."""

from __future__ import annotations

import gc
import importlib
import io
import sys
import types

import parallel

from .._settings import HostSettings
from .._wire.news import ROOT_HOST
from . import kernel, worker


def prepare(settings: HostSettings) -> None:
    """All that a worker shall find done."""
    gc.disable()  # and collect nothing: workers would write into the holes, each page a copy
    kernel.adopt_orphans()
    kernel.raise_open_files()
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what a killed worker printed is not lost
    for name in dir(parallel):
        getattr(parallel, name)  # loads it, once for all workers
    for name in settings.preload:
        _preload(name, settings)
    worker.rehearse(settings)
    kernel.set_process_name("parallel-forkserver")
    gc.freeze()


def _preload(name: str, settings: HostSettings) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if settings.host == ROOT_HOST or not f"{name}.".startswith(f"{exc.name}."):
            raise  # on other hosts a module of the program's own comes with the first call
