"""Memory and open files are bounded by buffers, never by what is copied (F-30)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.layout_content import put

from ocitool.digest import Digest, new_hasher
from ocitool.layout import LayoutStore
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 384 << 20
ROOT = Path(__file__).parents[3]

JOB = """
import resource, sys
from ocitool.layout import ArchiveSource, ArchiveWriter, LayoutStore
from ocitool.transfer import copy

resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
source, target, kind = sys.argv[1:]
if kind == "layout":
    copy(LayoutStore(source, read_only=True), LayoutStore(target), "a")
elif kind == "to archive":
    with ArchiveWriter(target) as archive:
        copy(LayoutStore(source, read_only=True), archive, "a")
else:
    with ArchiveSource(source) as archive:
        copy(archive, LayoutStore(target), "a")
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


class Zeros:
    """A long reader that takes no room."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, n: int = -1, /) -> bytes:
        count = min(self._left, n if n >= 0 else self._left)
        self._left -= count
        return bytes(count)


def large(store: LayoutStore) -> None:
    """Put one large blob and many small ones into a layout, as one image."""
    hasher = new_hasher("sha256")
    for _ in range(SIZE >> 20):
        hasher.update(bytes(1 << 20))
    blob = Descriptor("application/octet-stream", Digest("sha256", hasher.hexdigest()), SIZE)
    store.push(blob, Zeros(SIZE))
    layers = [blob, *(put(store, b"%d" % n) for n in range(126))]
    manifest = {
        "schemaVersion": 2,
        "config": put(store, b"{}").to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    root = put(store, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    store.tag(root, "a")
    store.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("large") / "source"
    store = LayoutStore(path)
    large(store)
    yield path
    for file in (path / "blobs" / "sha256").iterdir():
        file.unlink()


def peak(source: Path, target: Path, kind: str) -> int:
    """The most memory that a copy had, in MiB."""
    command = [sys.executable, "-c", JOB, str(source), str(target), kind]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True)
    return int(done.stdout) >> 10


def test_f_30_large_blobs_and_many_layers_take_little_memory_and_few_files(
    source: Path, tmp_path: Path
) -> None:
    assert peak(source, tmp_path / "layout", "layout") < 80
    assert peak(source, tmp_path / "a.tar", "to archive") < 80
    assert peak(tmp_path / "a.tar", tmp_path / "again", "from archive") < 80
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size >= SIZE:
            path.unlink()
