"""The confined root by itself: links resolve as if the root were `/`, by the kernel and by our walk alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.unpack_images import image
from support.unpack_tars import archive, directory, file, symlink

from ocitool.errors import OciError, UnsafeContent
from ocitool.unpack import openat2
from ocitool.unpack.root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator


def open_files() -> set[tuple[str, str]]:
    """Which files and directories are open, and as what; not the sockets of other threads."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - closes the directory before we look
        with suppress(OSError):  # closed meanwhile
            found.add((number, str(Path("/proc/self/fd", number).readlink())))
    return {(number, name) for number, name in found if name.startswith("/")}


@contextmanager
def rooted(path: Path, *, kernel: bool) -> Iterator[Root]:
    before = open_files()
    root = Root(os.open(path, os.O_RDONLY | os.O_DIRECTORY), kernel=kernel)
    try:
        yield root
    finally:
        root.close()
        assert open_files() <= before


def test_this_machine_has_openat2() -> None:
    assert openat2.available()


@pytest.mark.parametrize("kernel", [True, False], ids=["openat2", "walk"])
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("usr", b"usr"),
        ("/usr", b"usr"),
        ("../../usr", b"usr"),
        ("/", b""),
        ("..", b""),
        (".", b""),
        ("usr/lib/..", b"usr"),
        ("usr/./lib//", b"usr/lib"),
        ("second", b"usr/lib"),
        ("/second/../lib", b"usr/lib"),
        ("gone", None),
        ("usr/gone/x", None),
        ("file", None),
        ("file/..", None),
    ],
)
def test_a_link_leads_where_it_would_in_the_container(
    tmp_path: Path, target: str, expected: bytes | None, *, kernel: bool
) -> None:
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "second").symlink_to("/usr/lib")
    (tmp_path / "link").symlink_to(target)
    with rooted(tmp_path, kernel=kernel) as root:
        found = root.directory(b"link")
        assert (found and found.path) == expected
        if found:
            assert os.fstat(found.fd).st_ino == (tmp_path / os.fsdecode(found.path)).stat().st_ino


@pytest.mark.parametrize("kernel", [True, False], ids=["openat2", "walk"])
def test_directories_are_made_behind_dangling_links(tmp_path: Path, *, kernel: bool) -> None:
    (tmp_path / "link").symlink_to("/a/../b/c")
    made: list[bytes] = []
    with rooted(tmp_path, kernel=kernel) as root:
        root._made = made.append
        assert root.made(b"link/d").path == b"b/c/d"
    assert made == [b"a", b"b", b"b/c", b"b/c/d"]


@pytest.mark.parametrize("kernel", [True, False], ids=["openat2", "walk"])
def test_thousands_of_directories_need_few_descriptors(tmp_path: Path, *, kernel: bool) -> None:
    with rooted(tmp_path, kernel=kernel) as root:
        before = open_files()
        for n in range(1000):
            root.made(b"d%d/e" % n)
        assert len(open_files() - before) < 300
        root.forget()
        assert root.directory(b"d5/e") is not None
        assert root.directory(b"d5/f") is None


def test_a_file_is_read_through_links_but_only_a_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "real").write_bytes(b"content")
    (tmp_path / "etc" / "passwd").symlink_to("../../../etc/real")
    (tmp_path / "etc" / "loop").symlink_to("loop")
    (tmp_path / "etc" / "outside").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "etc" / "pipe")
    with rooted(tmp_path, kernel=False) as root:
        assert root.read(b"etc/passwd", limit=7) == b"content"
        assert root.read(b"etc/passwd", limit=6) is None
        for other in (b"etc/loop", b"etc/outside", b"etc/pipe", b"etc", b"no/such", b"etc/real/x"):
            assert root.read(other, limit=100) is None


@pytest.mark.parametrize("kernel", [True, False], ids=["openat2", "walk"])
def test_a_loop_is_refused(tmp_path: Path, *, kernel: bool) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with rooted(tmp_path, kernel=kernel) as root, pytest.raises(UnsafeContent):
        root.directory(b"a")


SWAPPER = """
import ctypes, glob, os, sys
where, link = sys.argv[1:]
exchange = lambda one, other: ctypes.CDLL(None).renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)
swaps = 0
print("ready", flush=True)
while not os.path.exists(where + "/stop"):
    for staging in glob.glob(where + "/.bundle*.partial"):
        for _ in range(1000):
            swaps += exchange(staging + "/rootfs/d", link) == 0
    if swaps > 1_000:
        open(where + "/enough", "w").close()
"""


@pytest.mark.usefixtures("resolver")
def test_lu_24_nobody_who_swaps_directories_and_links_leads_us_out(tmp_path: Path, canary: Path) -> None:
    """Another process exchanges a directory and a link to the canary while layers are applied."""
    link = tmp_path / "link"
    link.symlink_to(canary)
    body = [file(b"d/song", b"croak"), file(b"d/new"), file(b"d/.wh.song"), file(b"d/.wh..wh..opq")]
    layer = archive(
        directory(b"d/", mode=0o700),
        *(
            part
            for n in range(50)
            for part in (file(b"d/e%d/song" % n, b"x"), symlink(b"l%d" % n, b"d"), *body, file(b"l%d/x" % n))
        ),
        directory(b"d/", mode=0o777, mtime=1),
    )
    attacked = image(layer, layer)
    with subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(tmp_path), str(link)], stdout=subprocess.PIPE, text=True
    ) as swapper:
        assert swapper.stdout
        swapper.stdout.readline()
        tries = 0
        start = time.monotonic()
        # However busy the machine is, five times at least, and until the other one has had its turn.
        while tries < 5 or time.monotonic() - start < 3 or not (tmp_path / "enough").exists():
            tries += 1
            with suppress(OciError):
                attacked.unpack(tmp_path / f"bundle{tries}")
        (tmp_path / "stop").touch()
