"""Unpack layers of ten thousand, a hundred thousand and a million entries: time and memory for each.

Twice each: as the lowest layer, and above another one, where a whiteout may come at any moment.

    python benchmarks/unpack_scale.py [SCRATCH [ENTRIES …]]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPT = """
import resource, sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from support.unpack_tars import END, directory, file
from ocitool.unpack.building import Here


class Entries:
    def __init__(self, count):
        self.parts = self.make(count)
    def make(self, count):
        for n in range(count // 10):
            yield directory(b"usr/%d/package-%d/" % (n % 100, n)) + b"".join(
                file(b"usr/%d/package-%d/some-module-%d.py" % (n % 100, n, k), b"x" * 100) for k in range(9))
        yield END
    def read(self, n=-1):
        return next(self.parts, b"")

count, layers = int(sys.argv[2]), int(sys.argv[3])
where = Path(sys.argv[4]); where.mkdir()
builder = Here(where, keep_owner=True, devices=True)
if layers == 2:
    builder.apply(Entries(0), max_entries=10**9)
start = time.process_time()
for _ in Entries(count).parts: pass
making = time.process_time() - start
start = time.process_time()
builder.apply(Entries(count), max_entries=10**9)
builder.finish(())
took = time.process_time() - start - making
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(f"{took:.2f} s of CPU, {took / count * 1e6:.1f} us an entry, peak {peak} MiB")
"""


def main(scratch: str = "/dev/shm", *counts: str) -> None:
    target = Path(scratch, "scale")
    for count in counts or ("10000", "100000", "1000000"):
        for layers in ("1", "2"):
            command = [sys.executable, "-c", SCRIPT, str(ROOT), count, layers, str(target)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            which = "lowest" if layers == "1" else "upper "
            print(f"{int(count):>9,} entries, {which} layer: {done.stdout.strip()}")
            shutil.rmtree(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
