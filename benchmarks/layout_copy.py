"""How fast a layout is copied to a layout on the same file system, beside other tools.

python benchmarks/layout_copy.py [MIB] [DIRECTORY]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocitool.layout import LayoutStore
    from ocitool.model import Descriptor

REPEAT = 3


def random_layout(path: Path, size: int) -> None:
    """A layout with an artifact of four layers that don't compress."""
    from ocitool import mediatypes, strictjson
    from ocitool.layout import LayoutStore
    from ocitool.model import Descriptor

    store = LayoutStore(path)
    layers = []
    for _ in range(4):
        content = os.urandom(size // 4)
        layers.append(Descriptor.of(mediatypes.OCI_LAYER_GZIP, content))
        push(store, layers[-1], content)
    config = Descriptor.of(mediatypes.OCI_EMPTY, b"{}")
    push(store, config, b"{}")
    manifest = strictjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )
    root = Descriptor.of(mediatypes.OCI_MANIFEST, manifest)
    push(store, root, manifest)
    store.tag(root, "a")


def push(store: LayoutStore, desc: Descriptor, content: bytes) -> None:
    """Push bytes."""
    from io import BytesIO

    store.push(desc, BytesIO(content))


def ours(source: Path, target: Path) -> list[str]:
    """The command that copies with ocitool's library, without the time that the command line takes."""
    code = (
        "import sys; from ocitool.layout import LayoutStore; from ocitool.transfer import copy\n"
        "copy(LayoutStore(sys.argv[1], read_only=True), LayoutStore(sys.argv[2]), 'a')"
    )
    return [sys.executable, "-c", code, str(source), str(target)]


def run(command: list[str]) -> tuple[float, int]:
    """Run a command; its wall time in seconds and the most memory it had, in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - start, usage.ru_maxrss >> 10


def measure(name: str, command: list[str], target: Path, size: int) -> None:
    """Run a command some times, and tell the best."""
    found = []
    for _ in range(REPEAT):
        shutil.rmtree(target, ignore_errors=True)
        found.append(run(command))
    seconds, peak = min(found)
    print(f"{name:10} {seconds:6.2f} s  {size / seconds / 1e6:7.0f} MB/s  peak {peak:4} MiB")


def main() -> None:
    """Compare."""
    if sys.argv[1:2] == ["--make"]:
        random_layout(Path(sys.argv[2]), int(sys.argv[3]))
        return
    size = int(sys.argv[1] if len(sys.argv) > 1 else 512) << 20
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as scratch:
        source, target = Path(scratch) / "source", Path(scratch) / "target"
        # In a process of its own, because a child's peak is never below what its parent had.
        run([sys.executable, __file__, "--make", str(source), str(size)])
        measure("ocitool", ours(source, target), target, size)
        measure("cp", ["cp", "-r", str(source), str(target)], target, size)
        if shutil.which("skopeo"):
            command = ["skopeo", "copy", "--preserve-digests", f"oci:{source}:a", f"oci:{target}:a"]
            measure("skopeo", command, target, size)


if __name__ == "__main__":
    main()
