"""Unpack one image again and again, beside GNU tar and umoci, and compare the medians.

Ours verifies both digests of the layer and writes a bundle; tar verifies nothing. Each runs as a process
of its own, start-up included, in turn, so that a busy machine is busy for all.

    python benchmarks/unpack_speed.py [LAYOUT [SCRATCH [ROUNDS]]]

Without a layout it makes all the images of `unpack_images.py` first. The scratch directory is in memory where
no other one is named.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import unpack_images
from measure import Contender, compare

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


def contenders(layout: Path, scratch: Path) -> list[Contender]:
    index = json.loads((layout / "index.json").read_bytes())
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    layer = blobs / manifest["layers"][0]["digest"][7:]
    target = scratch / "target"
    ours = [sys.executable, "-c", OURS, str(layout), str(target)]
    absent, empty = partial(clear, target), partial(clear, target, make=True)
    checkout = {"PYTHONPATH": str(ROOT)}
    return [
        Contender("ocitool", ours, absent, checkout),
        Contender("ocitool, synced", [*ours, "sync"], absent, checkout),
        Contender("tar -xzf", ["tar", "-xzf", str(layer), "-C", str(target)], empty),
        Contender("umoci", ["umoci", "unpack", "--image", f"{layout}:latest", str(target)], absent),
    ]


def clear(target: Path, *, make: bool = False) -> None:
    if target.exists():
        shutil.rmtree(target)
    if make:
        target.mkdir()


def main(layout: str = "", scratch: str = "/dev/shm", rounds: str = "5") -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        if not layout:
            unpack_images.main(directory)
        for one in [layout] if layout else [str(Path(directory, name)) for name in unpack_images.MAKERS]:
            compare(f"{Path(one).name} unpacked", contenders(Path(one), Path(directory)), int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
