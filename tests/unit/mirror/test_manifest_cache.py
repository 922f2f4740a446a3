"""Manifests that were read are kept, and a disk that can't keep them is no failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.disks import small_disk
from support.peers import call

from ocitool import mediatypes
from ocitool.mirror.reading import ManifestCache
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from pathlib import Path

RAW = b"{}"
DESC = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)


def file_in(directory: Path) -> Path:
    return directory / DESC.digest.algorithm / DESC.digest.hex


def test_the_next_run_knows_what_was_read(tmp_path: Path) -> None:
    ManifestCache(tmp_path).put(DESC, RAW)

    assert ManifestCache(tmp_path).get(DESC) == RAW


def test_what_was_changed_on_the_disk_is_not_believed(tmp_path: Path) -> None:
    ManifestCache(tmp_path).put(DESC, RAW)
    file_in(tmp_path).write_bytes(b"[]")

    assert ManifestCache(tmp_path).get(DESC) is None


def test_what_was_of_use_lately_is_not_forgotten(tmp_path: Path) -> None:
    ManifestCache(tmp_path).put(DESC, RAW)
    os.utime(file_in(tmp_path), (0, 0))
    cache = ManifestCache(tmp_path)
    cache.get(DESC)

    cache.sweep()

    assert file_in(tmp_path).exists()


def test_a_place_that_is_no_directory_keeps_nothing_and_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = ManifestCache(tmp_path / "file")

    cache.put(DESC, RAW)
    cache.sweep()

    assert cache.get(DESC) == RAW
    assert ManifestCache(tmp_path / "file").get(DESC) is None


@pytest.mark.root
def test_what_is_on_a_disk_that_can_not_be_written_is_read(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m") as disk:
        ManifestCache(disk).put(DESC, RAW)
        call("mount", "-o", "remount,ro", disk)
        cache = ManifestCache(disk)

        assert cache.get(DESC) == RAW
        cache.sweep()


def test_a_manifest_that_can_not_be_kept_leaves_nothing_behind(tmp_path: Path) -> None:
    file_in(tmp_path).mkdir(parents=True)

    ManifestCache(tmp_path).put(DESC, RAW)

    assert list(file_in(tmp_path).parent.iterdir()) == [file_in(tmp_path)]


def test_what_can_not_be_removed_does_not_end_the_sweep(tmp_path: Path) -> None:
    file_in(tmp_path).mkdir(parents=True)
    os.utime(file_in(tmp_path), (0, 0))

    ManifestCache(tmp_path).sweep()

    assert file_in(tmp_path).is_dir()
