"""`abc`: what every launcher can be told, and what it refuses."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from parallel.abc import Launcher, Shell


@dataclass(frozen=True, slots=True, eq=False)
class Nowhere(Launcher):
    def open(self) -> AbstractAsyncContextManager[Shell]:
        raise NotImplementedError


def test_all_settings_but_the_name_have_defaults() -> None:
    launcher = Nowhere(name="x")
    assert (launcher.slots, launcher.python, launcher.cwd, launcher.setup) == (None,) * 4
    assert dict(launcher.env) == {}
    assert launcher.connect_timeout == 30


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""},
        {"slots": -1},
        {"connect_timeout": 0},
        {"connect_timeout": float("nan")},
        {"env": {"A-B": "c"}},
        {"env": {"A": "\0"}},
        {"env": {"": "x"}},
        {"python": ""},
        {"cwd": "a\0b"},
        {"setup": ""},
    ],
    ids=str,
)
def test_settings_that_cannot_be_right_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Nowhere(**{"name": "x", **settings})
