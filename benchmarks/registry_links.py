"""Pulls over links that are not loopback: 50 ms round trips, and connections capped at 20 MB/s each.

    python benchmarks/registry_links.py [DIRECTORY]

The links are proxies in this process, so what they cost in processor time is part of the figures.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from measure import Contender, run
from support.registry_faults import FaultProxy, Faults
from support.registry_images import image
from support.registry_process import docker_registry

from ocitool.layout import LayoutStore

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 5
PULL = """
import sys
from ocitool.layout import LayoutStore
from ocitool.reference import Reference
from ocitool.registry import Client, ClientConfig
from ocitool.transfer import copy

reference, target, ranges = sys.argv[1:]
with Client(ClientConfig(ranges=int(ranges))) as client:
    copy(client.repository(Reference.parse(reference)), LayoutStore(target), "v1")
"""


@contextmanager
def served(directory: Path, faults: Faults, *sizes: int) -> Iterator[str]:
    """An image with layers of these sizes, behind a link."""
    layout = directory / "layout"
    subprocess.run([sys.executable, __file__, "--make", layout, *map(str, sizes)], check=True)
    with docker_registry(directory) as registry:
        ocitool = str(Path(sys.executable).with_name("ocitool"))
        subprocess.run(
            [ocitool, "--quiet", "push", f"oci:{layout}:v1", f"{registry}/bench/app:v1"], check=True
        )
        host, _, port = registry.partition(":")
        with FaultProxy((host, int(port)), faults).running() as proxy:
            yield proxy.name


def timed(registry: str, directory: Path, ranges: int) -> float:
    """The median of whole pulls, in seconds."""
    times = []
    for i in range(ROUNDS):
        target = directory / f"pulled-{ranges}-{i}"
        command = [sys.executable, "-c", PULL, f"{registry}/bench/app", str(target), str(ranges)]
        done = run(Contender("pull", command))
        times.append(done.wall)
        print(f"    {done.wall:.2f} s, {done.memory:.0f} MiB", flush=True)
    return statistics.median(times)


def far_away(parent: str | None) -> None:
    """How many round trips a pull of 20 small layers takes, in time."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        directory = Path(name)
        with served(directory, Faults(delay=0.025), *[10_000] * 20) as registry:
            print("20 layers of 10 kB over 50 ms round trips, 4 at once")
            took = timed(registry, directory, 1)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import ocitool.registry, ocitool.layout"], check=True)
    bare = time.perf_counter() - started
    print(f"  {took:.2f} s, of which {bare:.2f} s are Python's start: {(took - bare) / 0.05:.1f} round trips")


def capped(parent: str | None) -> None:
    """One large layer over one connection, and over several."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        directory = Path(name)
        with served(directory, Faults(rate=20e6), 400_000_000) as registry:
            print("one layer of 400 MB over connections of 20 MB/s each")
            one, several = timed(registry, directory, 1), timed(registry, directory, 5)
    print(f"  one connection {one:.1f} s, up to five {several:.1f} s: {one / several:.1f} times as fast")


def main() -> None:
    """Measure both links."""
    if sys.argv[1:2] == ["--make"]:
        image(LayoutStore(Path(sys.argv[2])), *map(int, sys.argv[3:]))
        return
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    far_away(parent)
    capped(parent)


if __name__ == "__main__":
    main()
