"""Coverage-guided fuzzing of what reads layers: `make fuzz`, or `unpack.py TARGET CORPUS [OPTION …]`.

The options are libFuzzer's. Targets: `entries` reads bytes as an archive; `applier` applies up to three
layers to a root beside a canary and compares what was made with the same layers in memory. For both,
everything ends in a result or an OciError, and the canary stands. Headers need no checksum here, because
hardly a mutation would get past it.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import atheris

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["ocitool.unpack"]):
    from ocitool.errors import OciError
    from ocitool.unpack.apply import Applier, Policy
    from ocitool.unpack.entries import Archive
    from ocitool.unpack.owners import Given, Single
    from ocitool.unpack.removal import Nobody, clear
    from ocitool.unpack.root import OPEN_DIRECTORY
    from ocitool.unpack.tally import Tally
    from ocitool.unpack.tree import Tree

from support import unpack_tars as tars  # noqa: E402 - after the instrumentation

SEPARATOR = b"\xfe\xfdlayer\xfd\xfe"
MAX_ENTRIES = 64


def read(data: bytes) -> None:
    """Read an archive, and be sure of what its entries promise."""
    archive = Archive(io.BytesIO(data), max_entries=MAX_ENTRIES)
    with suppress(OciError):
        for entry in archive:
            assert not {b"", b".", b".."} & set(entry.path.split(b"/")) or not entry.path
            assert b"\0" not in entry.path + entry.link
            assert 0 <= entry.mode <= 0o7777
            assert 0 <= entry.uid < 2**32 - 1 > entry.gid >= 0
            assert abs(entry.mtime) <= 2**63
            assert sum(map(len, archive.body())) == entry.size


class Applying:
    """A root and a canary that outlive every input."""

    def __init__(self) -> None:
        self.where = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.root, self.canary = self.where / "root", self.where / "canary"
        self.root.mkdir()
        self.canary.mkdir()
        (self.canary / "song").write_bytes(b"tweet")
        self.before = self.canaries()

    def canaries(self) -> list[tuple[object, ...]]:
        """Everything about the canary but when it was read, and what else is there."""
        seen: list[tuple[object, ...]] = [tuple(sorted(os.listdir(self.where)))]  # noqa: PTH208 - plain names
        for path in (self.canary, self.canary / "song"):
            status = path.lstat()
            seen.append((*status[:7], status.st_mtime_ns, status.st_ctime_ns, os.listxattr(path)))
        return [*seen, ((self.canary / "song").read_bytes(), *os.listdir(self.canary))]  # noqa: PTH208

    def __call__(self, data: bytes) -> None:
        """Apply the layers in some bytes; the tree in memory has the same names if it accepts them too."""
        layers = data.split(SEPARATOR)[:3]
        tally = Tally()
        fd = os.open(self.root, OPEN_DIRECTORY)
        keep_owner = os.geteuid() == 0 and len(data) % 2 == 0
        owners = Given() if keep_owner else Single(tally)
        applier = Applier(fd, owners, tally, Policy(devices=keep_owner))
        try:
            for layer in layers:
                applier.apply(Archive(io.BytesIO(layer), max_entries=MAX_ENTRIES))
            applier.finish()
            self.compare(layers, devices=keep_owner)
        except OciError:
            pass
        finally:
            applier.close()
            self.empty()
        assert self.canaries() == self.before

    def compare(self, layers: list[bytes], *, devices: bool) -> None:
        """Hold what was made against the same layers in memory."""
        tree = Tree()
        for layer in layers:
            tree.apply(Archive(io.BytesIO(layer), max_entries=MAX_ENTRIES))
        kinds = {"block device", "character device"}
        expected = {path for path, facts in tree.files() if devices or facts.kind.value not in kinds}
        found = set()
        top = os.fsencode(self.root)
        for above, directories, files in os.walk(top):
            found |= {os.path.relpath(above + b"/" + name, top) for name in directories + files}
        assert found == expected, (found - expected, expected - found)

    def empty(self) -> None:
        """Make the root a new one."""
        fd = os.open(self.root, OPEN_DIRECTORY)
        try:
            clear(fd, b"", Nobody())
        finally:
            os.close(fd)


def seed(corpus: Path) -> None:
    """Write what mutations start from."""
    corpus.mkdir(parents=True, exist_ok=True)
    plain = tars.archive(
        tars.directory(b"d/"),
        tars.file(b"d/a", b"body"),
        tars.symlink(b"l", b"../d"),
        tars.hardlink(b"h", b"d/a"),
    )
    odd = tars.archive(
        tars.file(b"n" * 150, b"x"),
        tars.pax({b"path": b"p", b"size": b"3", b"mtime": b"1.5", b"SCHILY.xattr.user.k": b"v"})
        + tars.file(b"q", b"abc"),
        tars.device(b"null", 1, 3),
        tars.fifo(b"f"),
    )
    upper = tars.archive(
        tars.file(b"d/.wh.a"), tars.file(b"l/b"), tars.directory(b"h/"), tars.file(b"d/.wh..wh..opq")
    )
    sparse = tars.archive(
        tars.pax({b"GNU.sparse.map": b"0,1,5,3", b"GNU.sparse.size": b"9"}) + tars.file(b"s", b"abcd")
    )
    escape = tars.archive(
        tars.symlink(b"e", b"/canary"), tars.file(b"e/song", b"x"), tars.hardlink(b"x", b"e/song")
    )
    for name, data in (
        ("plain", plain),
        ("odd", odd),
        ("sparse", sparse),
        ("escape", escape),
        ("layers", plain + SEPARATOR + upper),
        ("three", plain + SEPARATOR + upper + SEPARATOR + plain),
    ):
        (corpus / name).write_bytes(data)


def main() -> None:
    """Fuzz one target."""
    target = {"entries": lambda: read, "applier": Applying}[sys.argv[1]]()
    corpus = Path(sys.argv[2])
    seed(corpus)
    with patch("ocitool.unpack.entries.check_sum", new=lambda _block: None):
        atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
