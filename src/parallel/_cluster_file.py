"""The cluster file: the hosts of a program, described in TOML.

    root_slots = 4

    [[hosts]]
    ssh = "alice@gpu.example.org:2222"
    name = "gpu"
    setup = "module load cuda"

A table says by one key how a host is reached; the others are the settings of that launcher, by
their own names. What may stand there is read off the launcher's signature, so there is no second
list of them here.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ._cluster import Cluster
from .abc import Allocation, Launcher
from .errors import ParallelError

Forms: TypeAlias = dict[str, Callable[[object], bool]]
"""What TOML can say of a type: nouns, and how to know whether a value is one."""

_TABLES = "list of tables, each begun by a line [[hosts]]"

_PLAIN: dict[object, tuple[str, type | tuple[type, ...]]] = {
    str: ("string", str),
    int: ("whole number", int),
    float: ("number", (int, float)),
    bool: ("boolean", bool),
}


_UNIONS = (types.UnionType, typing.Union)  # pyright: ignore[reportDeprecated]  # some still are


class _Kind(NamedTuple):
    """A way to a host: what stands in the file for it, and the launcher."""

    key: str
    launcher: str
    setting: str
    """Of the launcher, that the key's value is; "" where there is no such."""
    example: str

    def load(self) -> Callable[..., Launcher | Allocation]:
        """Its class, which only a program that uses it imports."""
        module = import_module(f".launch.{self.key}", __package__)
        launcher: Callable[..., Launcher | Allocation] = getattr(module, self.launcher)
        return launcher


_KINDS = {
    kind.key: kind
    for kind in (
        _Kind("ssh", "Ssh", "destination", 'ssh = "user@host:port"'),
        _Kind("command", "Command", "argv", 'command = ["docker", "exec", "-i", "box"]'),
        _Kind("local", "Local", "", "local = true"),
        _Kind("slurm", "Slurm", "", "slurm = { nodes = 2 }"),
    )
}


def read_cluster(path: str | Path) -> Cluster:
    """The cluster that a file describes.

    Raises `ParallelError` for what makes no sense there, OSError for a file that is not there.
    """
    data = Path(path).read_bytes()
    try:
        content = tomllib.loads(data.decode())
    except ValueError as exc:
        raise ParallelError(f"{path} is no TOML: {exc}; see https://toml.io") from exc
    tables = content.get("hosts", [])
    _check(f"{path}", content, {"root_slots": _forms(int), "hosts": {_TABLES: _is_list}})
    hosts = [_read_host(f"{path}, [[hosts]] number {i}", host) for i, host in enumerate(tables, 1)]
    try:
        return Cluster(hosts, root_slots=content.get("root_slots"))
    except (ParallelError, ValueError) as exc:
        raise ParallelError(f"{path}: {exc}") from exc


def _read_host(where: str, table: object) -> Launcher | Allocation:
    if not isinstance(table, dict):
        mend = f"write [[hosts]] and below it {_KINDS['ssh'].example}"
        raise ParallelError(f"{where}: {_show(table)} is no table; {mend}")
    if isinstance(table.get("name"), str):
        where += f" ({table['name']})"
    kind = _kind_of(where, table)
    launcher = kind.load()
    settings = _settings_of(where, kind, table)
    known, needed = _known_settings(launcher), _needed_settings(launcher)
    if kind.setting:
        known[kind.key] = known.pop(kind.setting)
        needed.remove(kind.setting)
    _check(where, settings, known)
    if missing := [name for name in needed if name not in settings]:
        raise ParallelError(f"{where}: with {kind.key} it needs a {' and a '.join(missing)}")
    if kind.setting:
        settings[kind.setting] = settings.pop(kind.key)
    try:
        return launcher(**settings)
    except (ValueError, TypeError) as exc:
        raise ParallelError(f"{where}: {exc}") from exc


def _kind_of(where: str, table: Mapping[str, object]) -> _Kind:
    named = [kind for key, kind in _KINDS.items() if key in table]
    if len(named) != 1:
        found = " and ".join(kind.key for kind in named) or "none"
        examples = ", ".join(kind.example for kind in _KINDS.values())
        raise ParallelError(f"{where}: it needs one of these keys, and has {found}: {examples}")
    return named[0]


def _settings_of(where: str, kind: _Kind, table: Mapping[str, object]) -> dict[str, object]:
    """By their names in the file."""
    value = table[kind.key]
    settings = {name: setting for name, setting in table.items() if name != kind.key}
    if kind.setting:
        return {kind.key: value, **settings}
    if kind.key == "slurm" and isinstance(value, dict):
        if twice := value.keys() & settings.keys():
            raise ParallelError(f"{where}: {' and '.join(sorted(twice))} is there twice")
        return {**value, **settings}
    if kind.key == "local" and value is True:
        return settings
    raise ParallelError(f"{where}: {kind.key} cannot be {_show(value)}; write {kind.example}")


# What is allowed


def _known_settings(launcher: Callable[..., object]) -> dict[str, Forms]:
    """The settings that a file can hold: a function or an object, for one, it cannot."""
    names = inspect.signature(launcher).parameters
    # The fields of a dataclass may come from several modules, and their types are looked up there.
    typed = launcher if dataclasses.is_dataclass(launcher) else launcher.__init__
    hints = typing.get_type_hints(typed)
    forms = {name: _forms(hints.get(name)) for name in names}
    return {name: form for name, form in forms.items() if form}


def _needed_settings(launcher: Callable[..., object]) -> list[str]:
    parameters = inspect.signature(launcher).parameters
    return [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]


def _forms(hint: Any) -> Forms:
    """What TOML can say of a type; nothing for a type that it cannot say."""
    if hint in _PLAIN:
        noun, wanted = _PLAIN[hint]
        return {noun: partial(_is_plain, wanted)}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return {noun: test for arm in arguments for noun, test in _forms(arm).items()}
    if origin in (Sequence, list, tuple):
        items = _forms(arguments[0]).items()
        return {f"list of {noun}s": partial(_is_list_of, test) for noun, test in items}
    if origin in (Mapping, dict):
        items = _forms(arguments[1]).items()
        return {f"table of {noun}s": partial(_is_table_of, test) for noun, test in items}
    return {}


def _is_list_of(test: Callable[[object], bool], value: object) -> bool:
    return isinstance(value, list) and all(map(test, value))


def _is_table_of(test: Callable[[object], bool], value: object) -> bool:
    return isinstance(value, dict) and all(map(test, value.values()))


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_plain(wanted: type | tuple[type, ...], value: object) -> bool:
    """True is an int only for Python."""
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def _check(where: str, settings: Mapping[str, object], known: Mapping[str, Forms]) -> None:
    for key, value in settings.items():
        if key not in known:
            similar = get_close_matches(key, known, 1)
            mend = f"do you mean {similar[0]}? " if similar else ""
            names = ", ".join(sorted(known))
            raise ParallelError(f"{where}: there is no key {key!r}; {mend}known are {names}")
        if not any(test(value) for test in known[key].values()):
            wanted = " or ".join(f"a {noun}" for noun in known[key])
            raise ParallelError(f"{where}: {key} has to be {wanted}, not {_show(value)}")


def _show(value: object) -> str:
    """About as the file has it."""
    return json.dumps(value, default=str, ensure_ascii=False)
