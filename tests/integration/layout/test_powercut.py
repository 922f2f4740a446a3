"""After a power cut anywhere in a pull, a layout is whole (F-18); the disk keeps only what was synced.

OCITOOL_FULL_SWEEP=1 cuts after every system call; without it some are chosen.
"""

from __future__ import annotations

import io
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.layout_faults import FULL, NEW, prepared, violations
from support.layout_powercut import Disk, Operation, Recorder

from ocitool import transfer, workers
from ocitool.layout import LayoutStore
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from pathlib import Path


def recorded(parent: Path, *, fresh: bool) -> tuple[Disk, list[Operation]]:
    """A disk as it was before a pull, and what the pull did to it."""
    parent.mkdir()
    path = prepared(parent / "layout", fresh=fresh)
    disk, recorder = Disk(parent), Recorder()
    with recorder.attached() as patch:
        patch.setattr(workers.Workers, "each", lambda _, work, items: [work(item) for item in items])
        store = LayoutStore(path)
        transfer.copy(LayoutStore(fixtures.layout(), read_only=True), store, NEW, referrers=True)
    store.close()
    return disk, recorder.log


@pytest.mark.parametrize("fresh", [True, False], ids=["a new layout", "a layout with an image"])
@pytest.mark.parametrize("survives", ["nothing", "names", "something"])
def test_f_18_cut_anywhere_the_layout_is_whole(tmp_path: Path, survives: str, *, fresh: bool) -> None:
    disk, log = recorded(tmp_path / "recorded", fresh=fresh)
    assert {operation.kind for operation in log} >= {"create", "data", "sync data", "sync names", "rename"}
    cuts = range(len(log)) if FULL else set(random.sample(range(len(log)), 12)) | {len(log) - 1}
    for number, operation in enumerate(log):
        disk.apply(operation)
        if number not in cuts:
            continue
        for seed in range(5 if FULL and survives == "something" else 1):
            target = tmp_path / "cut"
            luck = random.Random(f"{number} {seed}") if survives == "something" else None
            disk.write_out(target, luck, names_last=survives == "names")
            ended = number == len(log) - 1
            if ended:
                # What `tag` has returned from lasts.
                assert NEW in LayoutStore(target / "layout").tags()
            assert list(violations(target / "layout", fresh=fresh)) == [], (number, seed, operation)
            shutil.rmtree(target)


def test_a_blob_that_was_pushed_lasts_though_nothing_names_it_yet(tmp_path: Path) -> None:
    path = prepared(tmp_path / "recorded" / "layout", fresh=False)
    disk, recorder = Disk(path.parent), Recorder()
    desc = Descriptor.of("application/octet-stream", b"pushed")
    with recorder.attached():
        LayoutStore(path).push(desc, io.BytesIO(b"pushed"))
    for operation in recorder.log:
        disk.apply(operation)
    disk.write_out(tmp_path / "cut", None, names_last=False)
    assert LayoutStore(tmp_path / "cut" / "layout", verify=True).exists(desc)


def test_f_18_without_the_syncs_the_same_cuts_do_damage(tmp_path: Path) -> None:
    """The test can fail: a disk on which `fsync` does nothing loses the image in some of the cuts."""
    disk, log = recorded(tmp_path / "recorded", fresh=False)
    for operation in log:
        if not operation.kind.startswith("sync data"):
            disk.apply(operation)
    disk.write_out(tmp_path / "cut", None, names_last=True)
    with pytest.raises(Exception, match=r"index\.json|JSON|layout"):
        assert list(violations(tmp_path / "cut" / "layout", fresh=False)) == []
