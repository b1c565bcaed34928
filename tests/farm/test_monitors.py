"""Monitors: they watch from before the first worker until after the last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

import parallel
from parallel.farm.audit import AuditLog


async def test_the_first_and_last_line_of_a_log_are_about_workers(
    tree: None, tmp_path: Path
) -> None:
    audit, trace = tmp_path / "audit", tmp_path / "trace"
    async with parallel.open_farm(workers=1, audit=audit, trace=trace) as farm:
        await farm.map(abs, range(3))
    events = [json.loads(line)["event"] for line in audit.read_text().splitlines()]
    assert events[0] == "joined" and events[-1] == "left"
    assert json.loads(trace.read_text())


async def test_what_was_seen_is_written_also_when_the_farm_is_left_by_an_exception(
    tree: None, tmp_path: Path
) -> None:
    audit, trace = tmp_path / "audit", tmp_path / "trace"
    with pytest.raises(KeyError):
        async with parallel.open_farm(workers=1, audit=audit, trace=trace) as farm:
            await farm.map(abs, range(3))
            raise KeyError
    assert audit.read_text().splitlines()[-1].count('"left"') == 1
    assert json.loads(trace.read_text())


async def test_they_write_while_the_farm_works(tree: None, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    async with parallel.open_farm(workers=1, audit=audit):
        with trio.fail_after(10):
            while "joined" not in audit.read_text():
                await trio.sleep(0.01)


async def test_without_them_nothing_is_observed(
    tree: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditLog, "__init__", None)
    async with parallel.open_farm(workers=1) as farm:
        assert farm._engine.observers == []
