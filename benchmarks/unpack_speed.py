"""Unpack one image again and again, beside GNU tar and umoci, and compare the medians.

Ours verifies both digests of the layer and writes a bundle; tar verifies nothing. Each runs as a process
of its own, start-up included, in turn, so that a busy machine is busy for all.

    python benchmarks/unpack_speed.py LAYOUT SCRATCH [ROUNDS]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
OURS = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from ocitool.model import Descriptor
from ocitool.unpack import UnpackOptions, unpack

class Layout:
    def resolve(self, ref):
        index = json.loads(Path(sys.argv[1], "index.json").read_bytes())
        return Descriptor.from_json(index["manifests"][0], "index")

    @contextmanager
    def fetch(self, desc, *, offset=0):
        with Path(sys.argv[1], "blobs", "sha256", desc.digest.hex).open("rb", buffering=0) as file:
            yield file

unpack(Layout(), Layout().resolve(""), Path(sys.argv[2]), options=UnpackOptions(sync="sync" in sys.argv))
"""


def commands(layout: Path, scratch: Path) -> dict[str, list[str]]:
    index = json.loads((layout / "index.json").read_bytes())
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    layer = blobs / manifest["layers"][0]["digest"][7:]
    target = str(scratch / "target")
    found = {
        "ocitool": [sys.executable, "-c", OURS, str(layout), target],
        "ocitool, synced to disk": [sys.executable, "-c", OURS, str(layout), target, "sync"],
        "tar -xzf": ["tar", "-xzf", str(layer), "-C", target],
    }
    if shutil.which("umoci"):
        found["umoci"] = ["umoci", "unpack", "--image", f"{layout}:latest", target]
    return found


class Run(NamedTuple):
    wall: float
    cpu: float  # of the process and those that it started
    peak: int


def run(name: str, command: list[str], target: Path) -> Run:
    if name.startswith("tar"):
        target.mkdir()
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    took = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{name} failed")
    shutil.rmtree(target)
    return Run(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)


def main(layout: str, scratch: str, rounds: str = "5") -> None:
    results: dict[str, list[Run]] = {}
    Path(scratch).mkdir(parents=True, exist_ok=True)
    for _ in range(int(rounds)):
        for name, command in commands(Path(layout), Path(scratch)).items():
            results.setdefault(name, []).append(run(name, command, Path(scratch, "target")))
    wall, cpu = (statistics.median(column) for column in list(zip(*results["ocitool"], strict=True))[:2])
    print(f"{Path(layout).name}, {rounds} rounds each, medians")
    for name, runs in results.items():
        walls, cpus, peaks = zip(*runs, strict=True)
        took, worked = statistics.median(walls), statistics.median(cpus)
        print(
            f"  {name:24} {took:7.3f} s  {took / wall:5.2f} x   CPU {worked:6.2f} s  {worked / cpu:5.2f} x"
            f"   peak {max(peaks)} MiB"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
