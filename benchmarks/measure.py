"""Whole-process measurements: wall time, processor time and peak memory, one command beside another.

The commands take turns, so that a machine that slows down slows all of them. What is quoted is the median.
"""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Run:
    """One finished process: seconds of wall and processor time, peak resident memory in MiB."""

    wall: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Contender:
    """A command to measure, and what has to be done, unmeasured, before each run of it."""

    name: str
    command: Sequence[str]
    prepare: Callable[[], object] = lambda: None
    environment: Mapping[str, str] | None = None

    @property
    def installed(self) -> bool:
        return shutil.which(self.command[0]) is not None


# As an installed package is: where Python may write no bytecode (PYTHONDONTWRITEBYTECODE), every run of the
# checkout would compile it anew.
compileall.compile_dir(Path(__file__).parents[1] / "ocitool", quiet=1)

# A process's peak memory counts from what its parent had when it was started, so a small one starts it.
_LAUNCHER = """
import os, posix, sys, time
quiet = [(posix.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - start,
      usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""


def run(contender: Contender) -> Run:
    """Run a command once; a failure ends the benchmark."""
    contender.prepare()
    said = subprocess.check_output(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *contender.command],
        env={**os.environ, **(contender.environment or {})},
        text=True,
    )
    code, wall, cpu, memory = said.split()
    if code != "0":
        raise SystemExit(f"{' '.join(contender.command)} exited {code}")
    return Run(float(wall), float(cpu), float(memory))


def compare(title: str, contenders: Sequence[Contender], rounds: int = 5) -> dict[str, Run]:
    """Measure the contenders that are on PATH in turns; print and return their medians.

    The first contender is the one that the others are compared with: a ratio below 1 is in its favour.
    """
    present = [contender for contender in contenders if contender.installed]
    for contender in present:
        run(contender)  # warms caches, and is not counted
    runs: dict[str, list[Run]] = {contender.name: [] for contender in present}
    for _ in range(rounds):
        for contender in present:
            runs[contender.name].append(run(contender))
    medians = {name: _median(done) for name, done in runs.items()}
    first = present[0].name
    print(f"\n{title}: medians of {rounds}")
    for name, median in medians.items():
        wall = f"{median.wall:8.3f} s wall (min {min(done.wall for done in runs[name]):.3f})"
        figures = f"{wall} {median.cpu:8.3f} s cpu {median.memory:8.1f} MiB peak"
        ratio = "" if name == first else f"  {first} / {name} = {medians[first].wall / median.wall:.2f}"
        print(f"  {name:<16} {figures}{ratio}")
    for contender in contenders:
        if contender not in present:
            print(f"  {contender.name:<16} not on PATH, so not measured")
    return medians


def _median(runs: Sequence[Run]) -> Run:
    return Run(
        statistics.median(run.wall for run in runs),
        statistics.median(run.cpu for run in runs),
        statistics.median(run.memory for run in runs),
    )
