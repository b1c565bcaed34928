"""The audit log: each change of state of each worker and task."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel.farm import Audit, Policy
from parallel.farm.audit import CHUNK, AuditLog
from parallel.farm.events import WorkerJoined


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def dies_at_3(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 4:
        raise ValueError("no four")
    return x


async def test_every_change_of_state_is_a_line(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with parallel.open_farm(workers=2, audit=path) as farm:
        policy = Policy(attempts=2)
        await farm.map(dies_at_3, range(10), policy=policy, on_error="return")
    lines = read(path)
    assert [line["order"] for line in lines] == list(range(len(lines)))
    events = Counter(line["event"] for line in lines)
    assert events["joined"] == events["left"] >= 3
    assert events["retried"] >= 1
    assert events["ended"] == 10
    assert events["sent"] >= 11
    outcomes = Counter(line["outcome"] for line in lines if line["event"] == "ended")
    assert outcomes == {"ok": 8, "failed": 1, "lost": 1}
    (failed,) = [line for line in lines if line.get("outcome") == "failed"]
    assert failed["error"] == "ValueError('no four')"
    assert failed["function"] == "dies_at_3"
    reasons = [line["reason"] for line in lines if line["event"] == "left"]
    assert sum("WorkerDied" in reason for reason in reasons) >= 2
    assert lines[0]["place"] == "root"
    ended = {line["task"]: line["order"] for line in lines if line["event"] == "ended"}
    for line in lines:
        if line["event"] == "sent":
            assert line["order"] < ended[line["task"]]


async def test_times_are_utc(tree: None, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    async with parallel.open_farm(workers=1, audit=tmp_path / "audit") as farm:
        await farm.map(abs, [1])
    times = [datetime.fromisoformat(line["time"]) for line in read(tmp_path / "audit")]
    assert before <= times[0] <= times[-1] <= datetime.now(UTC)
    assert times[0].utcoffset() == timedelta(0)


async def test_what_comes_out_of_a_journal_is_said_so(tree: None, tmp_path: Path) -> None:
    journal = parallel.farm.Journal(tmp_path / "journal", version="1")
    for _ in range(2):
        async with parallel.open_farm(workers=1, journal=journal, audit=tmp_path / "audit") as farm:
            await farm.map(abs, [-5])
    tasks = [line["event"] for line in read(tmp_path / "audit") if "task" in line]
    assert tasks == ["sent", "ended", "recalled"]


async def test_files_are_rotated_by_their_size_and_no_line_is_torn(
    tree: None, tmp_path: Path
) -> None:
    audit = Audit(tmp_path / "audit", max_bytes=4000, backups=1000)
    async with parallel.open_farm(workers=2, audit=audit) as farm:
        await farm.map(abs, range(200))
    files = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:] or 0))
    assert len(files) > 5
    assert all(path.stat().st_size <= 4000 for path in files)
    lines = [line for path in files for line in read(path)]
    assert [line["order"] for line in lines] == list(range(len(lines)))


def test_so_many_old_files_are_kept(tmp_path: Path) -> None:
    log = AuditLog(Audit(tmp_path / "audit", max_bytes=500, backups=2))
    for number in range(100):
        log.observe(WorkerJoined(f"root.{number}", "root"))
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {"audit", "audit.1", "audit.2"}
    assert read(tmp_path / "audit")[-1]["order"] == 99


def test_lines_are_written_together(tmp_path: Path) -> None:
    log = AuditLog(Audit(tmp_path / "audit"))
    log.observe(WorkerJoined("root.0", "root"))
    assert read(tmp_path / "audit") == []
    log.refresh()
    assert len(read(tmp_path / "audit")) == 1
    for number in range(CHUNK // 50):
        log.observe(WorkerJoined(f"root.{number}", "root"))
    assert len(read(tmp_path / "audit")) > 100, "more than enough for one writing"
    log.close()


class Rude(Exception):
    def __repr__(self) -> str:
        raise self


def raise_rude(_: int) -> None:
    raise Rude


async def test_an_exception_that_cannot_be_shown_is_no_hindrance(
    tree: None, tmp_path: Path
) -> None:
    async with parallel.open_farm(workers=1, audit=tmp_path / "audit") as farm:
        await farm.map(raise_rude, [1], on_error="return")
    (failed,) = [line for line in read(tmp_path / "audit") if line.get("outcome") == "failed"]
    assert "Rude" in failed["error"]


async def test_a_log_that_cannot_be_opened_is_an_error_at_once(tree: None, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with parallel.open_farm(workers=1, audit=tmp_path / "nowhere" / "audit"):
            raise AssertionError


async def test_a_full_disk_ends_the_log_and_not_the_farm(
    tree: None, mount: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = mount("size=16k")
    async with parallel.open_farm(workers=1, audit=disk / "audit", trace=disk / "trace") as farm:
        assert await farm.map(abs, range(2000)) == list(range(2000))
    assert len(caplog.records) == 2
    assert "the audit log is written no more" in caplog.text
    assert "the trace is written no more" in caplog.text
    assert "No space left" in caplog.text
