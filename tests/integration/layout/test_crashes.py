"""A pull that is killed, or refused space, anywhere leaves a layout that is whole, and the next one goes on.

OCITOOL_FULL_SWEEP=1 meets every system call; without it some of each kind are met.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from support.layout_faults import CHANGES, FAILED, faults, prepared, run, spread, violations
from support.peers import call, require, require_root

if TYPE_CHECKING:
    from pathlib import Path

KILLED = -9


@pytest.mark.parametrize("fresh", [True, False], ids=["a new layout", "a layout with an image"])
def test_f_17_killed_at_any_system_call_nothing_is_lost(tmp_path: Path, *, fresh: bool) -> None:
    require("strace")
    points = spread(faults(tmp_path, "signal=KILL", CHANGES, fresh=fresh), 10)
    assert len(points) >= 10
    for point in points:
        path = prepared(tmp_path / "layout", fresh=fresh)
        assert run(path, tmp_path / "report", *point.strace).returncode == KILLED, point
        assert list(violations(path, fresh=fresh)) == [], point


@pytest.mark.parametrize(
    ("row", "what", "calls"),
    [
        ("F-15", "error=ENOSPC", ("write", "fsync", "rename", "renameat", "mkdir", "mkdirat")),
        ("F-15", "error=EDQUOT", ("write", "fsync", "rename", "renameat", "mkdir", "mkdirat")),
        ("F-16", "error=EIO", (*CHANGES, "close", "read")),
    ],
    ids=str,
)
def test_f_15_f_16_refused_at_any_system_call_the_error_is_clear_and_nothing_is_lost(
    tmp_path: Path, row: str, what: str, calls: tuple[str, ...]
) -> None:
    require("strace")
    points = spread(faults(tmp_path, what, calls, fresh=True), 8)
    outcomes = set()
    for point in points:
        path = prepared(tmp_path / "layout", fresh=True)
        report = tmp_path / "report"
        outcome = run(path, report, *point.strace).returncode
        outcomes.add(outcome)
        # What fails may be of no consequence: to remove one's own lease, say.
        assert outcome in {0, FAILED}, (point, report.read_text())
        if outcome == FAILED:
            message, _, hint = report.read_text().partition(" | ")
            if row == "F-15":
                assert f"in {path}" in message, (point, message)
                assert "no space" in message, (point, message)
                assert "bytes" in hint, (point, hint)
            else:
                assert "Input/output error" in message, (point, message)
                assert "layout" in message, (point, message)
        assert list(violations(path, fresh=True)) == [], point
    assert FAILED in outcomes


@pytest.mark.root
@pytest.mark.parametrize(
    "option", ["size=16k", "size=24k", "size=32k", "size=40k", "nr_inodes=9", "nr_inodes=14"]
)
def test_f_15_a_disk_that_is_really_full(tmp_path: Path, option: str) -> None:
    """tmpfs gives whole pages, so a few of them hold the documents and not the image."""
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    call("mount", "-t", "tmpfs", "-o", option, "tmpfs", disk)
    try:
        report = tmp_path / "report"
        assert run(disk / "layout", report).returncode == FAILED, option
        message, _, hint = report.read_text().partition(" | ")
        assert "no space" in message
        assert "free" in hint
        call("mount", "-o", "remount,size=10m,nr_inodes=1000", disk)
        assert list(violations(disk / "layout", fresh=True)) == []
    finally:
        gc.collect()  # a store that a failure has left behind holds its lease open
        call("umount", disk)
