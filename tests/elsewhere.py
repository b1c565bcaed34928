"""The same tests with every process on another host: `pytest --elsewhere`.

What a test of the root starts without `where=` runs on a second host on this machine, so that all
that is promised of one host is seen to hold across two. What `LOCAL` names is about this host.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest

import parallel
from parallel import _api, _directory
from parallel._member import Member
from parallel.launch.local import Local

HOST = "elsewhere"

MODULES = {
    "test_api",
    "test_cancellation",
    "test_channel",
    "test_crashes",
    "test_hub",
    "test_main_module",
    "test_portable",
    "test_process",
    "test_root",
    "test_volume",
}

LOCAL = {
    "test_a_preloaded_module_is_imported_once_for_all_workers": "it is of the program's own",
    "test_a_preload_may_print": "it is of the program's own",
    "test_a_process_is_seen_to_its_end_when_all_that_was_left_open_is_closed": "the link is too",
    "test_an_import_path_with_odd_entries_is_no_hindrance": "another host has its own path",
    "test_an_import_path_longer_than_a_socket_holds_is_no_hindrance": "the same",
    "test_one_slow_client_among_a_hundred_is_in_nobody_s_way": "a link has room for what it sends",
    "test_ps_shows_what_each_process_does": "it looks at the processes of the root's own host",
}
"""Tests that hold on the root's own host only, and why."""


def concerns(item: pytest.Item) -> bool:
    """Whether the test says something of other hosts."""
    module = item.nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
    return module in MODULES and getattr(item, "originalname", item.name) not in LOCAL


_in_use = False


def host() -> str:
    """Where the processes of a test run that names no host."""
    return HOST if _in_use else "root"


def choose_elsewhere(member: Member, where: Any) -> str:
    """Where the root's processes go that name no host."""
    if where is None and member.settings.host == "root":
        return HOST
    return _directory.choose_host(member, where)


def init_elsewhere(init: Any, *, cluster: parallel.Cluster | None = None, **options: Any) -> Any:
    """`init` whose default is this host and another."""
    default = parallel.Cluster([Local(name=HOST, python=sys.executable)])
    return init(cluster=cluster or default, **options)


def stop() -> None:
    """The test is over."""
    global _in_use
    _in_use = False


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, to the end of the test."""
    global _in_use
    _in_use = True
    monkeypatch.setattr(_api, "choose_host", choose_elsewhere)
    monkeypatch.setattr(parallel, "init", functools.partial(init_elsewhere, parallel.init))
