"""`import parallel`: cheap, without effects, and everything public is there."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

import parallel

PACKAGE = Path(parallel.__file__).parent
MODULES = sorted(
    ".".join(("parallel", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in PACKAGE.rglob("*.py")
)
PROGRAMS = {"parallel.__main__", "parallel._host.__main__"}


def in_fresh_interpreter(source: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def public_names() -> set[str]:
    """What type checkers are told of: the names that `__init__.py` imports for them."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    return {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }


NAMES = re.findall(
    r"\w+",
    """
    errors init run spawn open_hub Hub Channel Process Cluster Client hosts current_host processes
    Connected Message Ended Disconnected random random_in round_robin least_loaded Host Placement
    ParallelError UnknownHost HostUnreachable HostMismatch HostDied WorkerDied WorkerCancelled
    RemoteError NotSendable ProtocolError MessageTooLarge
    """,
)


def test_each_public_name_is_there_and_says_what_it_is() -> None:
    for name in sorted({*NAMES, *public_names()}):
        value = getattr(parallel, name)
        assert name in dir(parallel)
        assert name in public_names()
        if name != "Placement":  # a type alias
            assert inspect.getdoc(value), name


def test_what_type_checkers_know_is_what_there_is() -> None:
    lazily = {name for names in parallel._NAMES.values() for name in names.split()}
    assert public_names() == lazily | set(parallel._MODULES)


def test_a_star_imports_every_public_name() -> None:
    names = in_fresh_interpreter("from parallel import *; print(*dir())").split()
    assert public_names() == {name for name in names if not name.startswith("__")}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'parallel' has no attribute 'spwan'"):
        parallel.spwan  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        exec("from parallel import spwan")
    assert not hasattr(parallel, "__all__") or set(parallel.__all__) == public_names()


def test_public_functions_and_classes_travel_by_name() -> None:
    for name in ("run", "spawn", "init", "Hub", "Channel", "WorkerDied", "random", "hosts"):
        value = getattr(parallel, name)
        assert pickle.loads(pickle.dumps(value)) is value


def test_the_version_is_that_of_the_distribution() -> None:
    assert parallel.__version__ == importlib.metadata.version("async-parallel")
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == parallel.__version__


def test_each_module_says_in_its_first_line_what_it_is() -> None:
    for path in PACKAGE.rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path
        assert docstring.splitlines()[0].endswith((".", "?")), path


def test_the_package_s_docstring_is_the_map_of_its_layers() -> None:
    assert parallel.__doc__ is not None
    for module in MODULES:
        layer = module.removeprefix("parallel").strip(".").split(".")[0]
        assert f"`{layer}`" in parallel.__doc__ or layer in ("", "__main__"), module


@pytest.mark.slow
def test_each_module_can_be_the_first_that_is_imported() -> None:
    modules = [module for module in MODULES if module not in PROGRAMS]
    in_fresh_interpreter(f"""
        import importlib, sys, trio
        for module in {modules!r}:
            for name in [name for name in sys.modules if name.partition(".")[0] == "parallel"]:
                del sys.modules[name]
            importlib.import_module(module)
    """)


HEAVY = ["asyncssh", "trio_asyncio", "numpy", "cryptography", "multiprocessing.pool", "psutil"]


def test_what_only_other_hosts_need_is_not_imported_even_when_everything_is_loaded() -> None:
    loaded = in_fresh_interpreter("""
        import sys, parallel
        for name in dir(parallel):
            getattr(parallel, name)
        print(*sys.modules)
    """).split()
    assert not set(HEAVY) & set(loaded)


def test_a_program_of_one_host_loads_nothing_that_only_others_need() -> None:
    loaded = in_fresh_interpreter("""
        import sys
        from parallel import Channel, Hub, current_host, hosts, init, run, spawn
        print(*sys.modules)
    """).split()
    others = {"_cluster", "_hosts", "_orders", "_service", "_shipping", "_sources", "abc"}
    assert not {f"parallel.{module}" for module in others} & set(loaded)


def test_nothing_of_it_is_loaded_before_it_is_used() -> None:
    before, after = in_fresh_interpreter("""
        import sys
        before = set(sys.modules)
        import parallel
        new = set(sys.modules) - before
        print(*sorted(name for name in new if name.startswith("parallel")))
        parallel.WorkerDied
        print(*sorted(name for name in sys.modules if name.startswith("parallel")))
    """).splitlines()
    assert before == "parallel"
    assert after == "parallel parallel.errors"


def test_importing_starts_nothing_and_changes_nothing() -> None:
    in_fresh_interpreter(
        """
        import gc, os, random, resource, signal, sys, threading, trio
        from pathlib import Path

        def state():
            return (
                os.listdir("/proc/self/fd"),
                threading.active_count(),
                [signal.getsignal(n) for n in signal.valid_signals()],
                resource.getrlimit(resource.RLIMIT_NOFILE),
                gc.isenabled(), gc.get_freeze_count(), gc.get_threshold(),
                sys.path[:], sys.breakpointhook, sys.excepthook, threading.excepthook,
                random.getstate(), dict(os.environ),
                Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
            )

        before = state()
        import parallel
        for name in dir(parallel):
            getattr(parallel, name)
        assert state() == before
        """,
        "-X",
        "dev",
        "-W",
        "error",
    )


def test_modules_of_the_package_reload() -> None:
    """Editors and notebooks do that."""
    in_fresh_interpreter("""
        import importlib, parallel
        importlib.reload(parallel)
        parallel.run
    """)


def test_the_farm_s_names_are_there_with_the_package() -> None:
    in_fresh_interpreter("import parallel; parallel.farm.Policy(timeout=1.0)")
