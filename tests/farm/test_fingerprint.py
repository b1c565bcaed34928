"""Fingerprints: the same for what is equal, in each run, and others for what is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from parallel.farm.fingerprint import fingerprint, fingerprint_of_call

from .. import support

SOME = """
from functools import partial
from parallel.farm.fingerprint import fingerprint, fingerprint_of_call

class Point:
    def __init__(self, x): self.x = x
    def move(self, y): return self.x + y

def adder(n):
    def add(x): return x + n
    return add

print(fingerprint(1, "a", [None, {"k": (1.5, b"x")}], Point("p")).hex())
print(fingerprint_of_call(adder(3)).hex())
print(fingerprint_of_call(partial(adder(3), 4)).hex())
print(fingerprint_of_call(lambda x: x in {"a", "b", "c"}).hex())
print(fingerprint_of_call(Point(3).move).hex())
print(fingerprint((lambda x: x,)).hex())
"""


def test_they_are_the_same_in_every_run(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(SOME)
    outputs = {
        subprocess.run([sys.executable, path], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    (output,) = outputs
    assert len(set(output.split())) == 6


@support.examples(100)
@hypothesis.given(support.json_values, support.json_values)
def test_which_parts_are_one_object_does_not_matter(a: Any, b: Any) -> None:
    import copy

    assert fingerprint([a, a, b]) == fingerprint([a, copy.deepcopy(a), copy.deepcopy(b)])


def adder(n: int) -> Callable[[int], int]:
    def add(x: int) -> int:
        return x + n

    return add


def test_functions_differ_by_what_they_hold() -> None:
    assert fingerprint_of_call(adder(1)) == fingerprint_of_call(adder(1))
    assert fingerprint_of_call(adder(1)) != fingerprint_of_call(adder(2))
    assert fingerprint_of_call(partial(max, 1)) != fingerprint_of_call(partial(max, 2))
    assert fingerprint_of_call(partial(max, 1)) != fingerprint_of_call(partial(min, 1))
    assert fingerprint_of_call(max) != fingerprint_of_call(min)


def test_lambdas_differ_by_what_they_do() -> None:
    first, second = (lambda x: x + 1), (lambda x: x + 2)
    again = lambda x: x + 1  # noqa: E731
    assert fingerprint_of_call(first) != fingerprint_of_call(second)
    assert fingerprint_of_call(first) == fingerprint_of_call(again)


def test_a_function_that_calls_itself_has_one() -> None:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    assert fingerprint_of_call(factorial) == fingerprint_of_call(factorial)


def test_what_cannot_be_pickled_does_not_matter_within_a_function() -> None:
    import threading

    lock = threading.Lock()
    assert fingerprint_of_call(partial(max, lock)) != fingerprint_of_call(partial(min, lock))
    with pytest.raises(TypeError):
        fingerprint(lock)


def test_arrays_and_what_contains_itself_have_one() -> None:
    assert fingerprint(np.arange(5)) == fingerprint(np.arange(5))
    assert fingerprint(np.arange(5)) != fingerprint(np.arange(6))
    endless: list[Any] = []
    endless.append(endless)
    assert len(fingerprint(endless)) == 32
