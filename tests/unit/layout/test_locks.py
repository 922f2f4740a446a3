"""Locks and leases: who works in a layout, and what of it stays while they do."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.layout_content import blob, held_below, put

from ocitool.digest import Digest
from ocitool.errors import UnsafeContent
from ocitool.layout import LayoutStore
from ocitool.layout.locks import GC_LOCK, INDEX_LOCK, Lease, lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ocitool.model import Descriptor


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A layout."""
    layout = LayoutStore(tmp_path / "layout")
    put(layout, b"hello")
    layout.close()
    return layout.path


@pytest.mark.parametrize("name", [INDEX_LOCK, GC_LOCK])
def test_im_07_a_lock_that_is_a_link_makes_no_file_elsewhere(root: Path, tmp_path: Path, name: str) -> None:
    planted = root / ".ocitool" / name
    planted.unlink(missing_ok=True)
    planted.symlink_to(tmp_path / "victim")
    store = LayoutStore(root)
    with pytest.raises(UnsafeContent, match=name):
        store.tag(put(store, b"more"), "a")
    assert not (tmp_path / "victim").exists()


def test_f_20_a_lease_begins_only_while_nobody_collects(root: Path) -> None:
    """Between its making and its lock it looks like that of a dead process, and would be collected."""
    leases = root / ".ocitool" / "leases"
    begun = threading.Thread(target=lambda: Lease(root).close())
    with lock(root, GC_LOCK):
        begun.start()
        begun.join(0.3)
        assert begun.is_alive()
        assert list(leases.iterdir()) == []
    begun.join()


@pytest.mark.parametrize(
    "act",
    [
        lambda store, desc: store.exists(desc),
        lambda store, desc: store.tag(desc, "a"),
        lambda store, desc: store.delete(desc),
    ],
    ids=["found", "named", "deleted"],
)
def test_f_20_nothing_is_found_named_or_deleted_while_garbage_goes(
    root: Path, act: Callable[[LayoutStore, Descriptor], object]
) -> None:
    """Or what is relied upon would be gone a moment later."""
    store, desc = LayoutStore(root), blob(b"hello")
    assert store.exists(desc)  # so that there is a lease to note it on
    acting = threading.Thread(target=act, args=(store, desc))
    with lock(root, GC_LOCK):
        acting.start()
        acting.join(0.3)
        assert acting.is_alive()
    acting.join()
    store.close()


def test_f_19_who_waits_for_a_blob_leaves_it_alone_once_it_is_there(root: Path) -> None:
    """What they waited for has got its final name meanwhile, so their file is the blob itself."""
    content = b"brought by one of two"
    other = threading.Thread(target=lambda: put(LayoutStore(root), content))
    with LayoutStore(root).resume(blob(content)) as partial:
        assert partial is not None
        other.start()
        other.join(0.3)
        assert other.is_alive()
        partial.push(io.BytesIO(content))
        inode = (root / "blobs" / "sha256" / blob(content).digest.hex).stat().st_ino
    other.join()
    path = root / "blobs" / "sha256" / blob(content).digest.hex
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)


def test_f_20_a_lease_that_has_ended_keeps_nothing_and_says_so(root: Path) -> None:
    lease = Lease(root)
    assert lease.note(Digest.of(b"hello"))
    lease.close()
    assert not lease.note(Digest.of(b"more"))


def test_f_30_leases_that_have_ended_hold_no_files(root: Path) -> None:
    store = LayoutStore(root)
    put(store, b"hello")
    assert len(held_below(root)) == 1
    store.close()
    assert held_below(root) == []


def test_f_30_a_lease_names_each_piece_of_content_once(root: Path) -> None:
    """Or one that is asked for every second for a month would fill the disk."""
    store = LayoutStore(root)
    for _ in range(3):
        put(store, b"hello")
    (lease,) = (root / ".ocitool" / "leases").iterdir()
    assert lease.read_text() == f"{Digest.of(b'hello')}\n"
    store.close()


def test_f_18_a_crash_is_remembered_until_all_that_it_touched_has_been_read(root: Path) -> None:
    store = LayoutStore(root)
    more = put(store, b"more")
    store.close()
    crashed = root / ".ocitool" / "leases" / "0123456789abcdef"
    crashed.write_text(f"{Digest.of(b'hello')}\n{more.digest}\n")
    store = LayoutStore(root)
    assert store.exists(more)
    assert crashed.exists()  # for the next process, if this one dies now
    assert store.exists(blob(b"hello"))
    assert not crashed.exists()
    store.close()


def test_a_forked_process_keeps_no_lock_that_its_parent_has_let_go(root: Path) -> None:
    """In a process of its own, because forking where other threads run is another story."""
    code = (
        "import os, pathlib, signal, sys; from ocitool.layout.locks import GC_LOCK, lock\n"
        "root = pathlib.Path(sys.argv[1]); signal.alarm(30)\n"
        "with lock(root, GC_LOCK):\n"
        "    child = os.fork()\n"
        "    if not child: signal.alarm(60); signal.pause()\n"
        "try:\n"
        "    with lock(root, GC_LOCK): pass\n"
        "finally: os.kill(child, signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, root], check=True)
