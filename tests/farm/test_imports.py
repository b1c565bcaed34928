"""The farm stands on what users can use as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import parallel
import parallel.farm

OWN = {"describe_exit", "dumps", "loads"}
"""What is of no use to others: words for an exit status, and pickling as channels do it."""


def imported_from_above() -> Iterator[tuple[str, str]]:
    for path in Path(parallel.farm.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                yield from ((path.stem, name.name) for name in node.names)
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("parallel") for name in node.names), path


def test_the_farm_uses_the_public_names_of_the_core() -> None:
    found = set(imported_from_above())
    assert found
    for module, name in found:
        assert name in parallel.__all__ or name in OWN, f"{module} imports {name}"


def test_each_of_its_own_names_has_a_use() -> None:
    assert {name for _, name in imported_from_above()} >= OWN
