"""A pull that dies, or is refused something, at a system call of our choice; and what must hold then."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support import fixtures

from ocitool import transfer, workers
from ocitool.errors import NotFound, OciError
from ocitool.events import Started
from ocitool.layout import LayoutStore
from ocitool.layout.check import check
from ocitool.layout.gc import collect
from ocitool.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
OLD, NEW = "zstd:1.0", "layers:1.0"

# What changes a file system, and what makes that last.
CHANGES = (
    "write",
    "fsync",
    "rename",
    "renameat",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "ftruncate",
)
FAILED = 10
# Read now, because tests run without the settings of the machine.
FULL = bool(os.environ.get("OCITOOL_FULL_SWEEP"))
MARKER = "/where-the-pull-starts"


def pull(path: Path, ref: str) -> None:
    """Pull an image, in this process and one step after the other."""
    # strace counts the system calls of each thread on its own.
    setattr(workers.Workers, "each", lambda _, work, items: [work(item) for item in items])  # noqa: B010
    os.access(MARKER, os.F_OK)
    store = LayoutStore(path)
    try:
        transfer.copy(LayoutStore(fixtures.IMAGES / "layout", read_only=True), store, ref, referrers=True)
    except OciError as error:
        # Not by `write`, which may be the call that is to fail.
        os.pwrite(2, f"{error.message} | {error.hint}".encode(), 0)
        os._exit(FAILED)
    store.close()
    os._exit(0)


def run(path: Path, report: Path, *strace: str) -> subprocess.CompletedProcess[bytes]:
    """Pull `NEW` under strace."""
    command = [*strace, sys.executable, "-B", "-m", "support.layout_faults", str(path), NEW]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    with report.open("w+b") as errors:
        return subprocess.run(
            command, env=environment, stderr=errors, stdout=subprocess.DEVNULL, check=False, timeout=60
        )


def prepared(path: Path, *, fresh: bool) -> Path:
    """A place for a layout, or a layout that has an image already."""
    shutil.rmtree(path, ignore_errors=True)
    if not fresh:
        store = LayoutStore(path)
        transfer.copy(LayoutStore(fixtures.layout(), read_only=True), store, OLD)
        store.close()
    return path


@dataclass(frozen=True)
class Fault:
    """One system call, and what happens to it."""

    call: str
    number: int
    what: str  # of strace: "signal=KILL", "error=ENOSPC"

    @property
    def strace(self) -> tuple[str, ...]:
        return (
            "strace", "-qq", "-o", "/dev/null", "-e", f"trace={self.call}",
            "-e", f"inject={self.call}:{self.what}:when={self.number}",
        )  # fmt: skip


def faults(scratch: Path, what: str, calls: tuple[str, ...], *, fresh: bool) -> list[Fault]:
    """Every call of a kind that a pull makes, each to be met by a fault."""
    path, log = prepared(scratch / "counted", fresh=fresh), scratch / "log"
    known = ",".join(f"?{call}" for call in (*calls, "access", "faccessat", "faccessat2"))
    assert (
        run(path, scratch / "report", "strace", "-qq", "-o", str(log), "-e", f"trace={known}").returncode == 0
    )
    before, marker, after = log.read_text().partition(MARKER)
    assert marker
    first, count = (Counter(re.findall(r"^(\w+)\(", text, re.MULTILINE)) for text in (before, after))
    return [Fault(call, first[call] + n + 1, what) for call in calls for n in range(count[call])]


def spread(points: list[Fault], at_most: int) -> list[Fault]:
    """Some of the points, the first and the last among them; all where the environment asks for it."""
    if FULL or len(points) <= at_most:
        return points
    return [points[i * (len(points) - 1) // (at_most - 1)] for i in range(at_most)]


def violations(path: Path, *, fresh: bool) -> Iterator[str]:
    """What is wrong with a layout after a pull ended somewhere; the next pull is part of the test."""
    source = LayoutStore(fixtures.layout(), read_only=True)
    store = LayoutStore(path, read_only=True)
    names: list[str] = []
    try:
        yield from (f"{problem.where} {problem.message}" for problem in check(store))
        names = store.tags()
    except NotFound:
        if not fresh:
            yield "the layout is gone"
    except OciError as error:
        yield f"the layout can't be read: {error.message}"
    if not fresh and OLD not in names:
        yield "the old name is lost"
    for name in names:
        if transfer.copy(store, MemoryStore(), name) != source.resolve(name):
            yield f"{name} names something else"
    yield from _next_pull(path, source)


def _next_pull(path: Path, source: LayoutStore) -> Iterator[str]:
    committed = {digest for digest, _ in LayoutStore(path, read_only=True).blobs}
    events: list[object] = []
    again = LayoutStore(path)
    root = transfer.copy(source, again, NEW, referrers=True, on_event=events.append)
    if root != source.resolve(NEW) or again.resolve(NEW) != root:
        yield "the next pull gives something else"
    for event in events:
        if isinstance(event, Started) and event.descriptor.digest in committed:
            yield f"{event.descriptor.digest} was there and was moved again"
    yield from (f"afterwards: {problem.where} {problem.message}" for problem in check(again))
    again.close()
    collect(LayoutStore(path), partial_age=0)
    left = [file.name for file in (path / ".ocitool").rglob("*") if file.is_file()]
    yield from (f"left behind: {name}" for name in left if not name.endswith(".lock"))


if __name__ == "__main__":
    pull(Path(sys.argv[1]), sys.argv[2])
