"""Uploads into a layout: what could be kept is right, and what is under way stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.disks import files_end_at
from support.layout_content import blob, held_below, put

from ocitool.errors import OciError
from ocitool.layout import LayoutStore
from ocitool.layout.check import check
from ocitool.layout.gc import collect
from ocitool.layout.incoming import IncomingBlob

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A layout."""
    store = LayoutStore(tmp_path / "layout")
    put(store, b"first")
    return store


def test_f_15_what_was_half_written_is_no_part_of_what_is_committed(store: LayoutStore) -> None:
    content = [b"a" * (LIMIT - 1000), b"b" * 2000, b"c" * 10]
    upload = IncomingBlob(store, lambda _: None)
    upload.write(content[0])
    with files_end_at(LIMIT), pytest.raises(OciError, match="an upload"):
        upload.write(content[1])
    assert upload.size == len(content[0])
    # What comes now may be shorter than what was cut off.
    upload.write(content[2])
    desc = blob(content[0] + content[2])
    upload.commit(desc)
    upload.close()
    with store.fetch(desc) as reader:
        assert reader.read() == content[0] + content[2]
    assert list(check(store)) == []


def test_f_25_an_upload_under_way_is_not_collected_however_old(store: LayoutStore) -> None:
    upload = IncomingBlob(store, lambda _: None)
    upload.write(b"hello")
    (path,) = (store.path / ".ocitool" / "partial").iterdir()
    os.utime(path, (0, 0))
    assert not collect(LayoutStore(store.path)).leftovers
    upload.commit(blob(b"hello"))
    upload.close()
    assert store.exists(blob(b"hello"))


def test_an_upload_that_is_given_up_leaves_nothing(store: LayoutStore) -> None:
    upload = IncomingBlob(store, lambda _: None)
    upload.write(b"hello")
    for _ in range(2):
        upload.close()
        assert not upload.is_open
    assert list((store.path / ".ocitool" / "partial").iterdir()) == []
    assert [name for name in held_below(store.path) if "/upload-" in name] == []


def test_im_07_an_upload_that_somebody_has_planted_is_not_written_through(
    store: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (store.path / ".ocitool" / "partial" / "upload-guessed").hardlink_to(victim)
    with pytest.raises(OciError, match="an upload"):
        IncomingBlob(store, lambda _: None)
    assert victim.read_bytes() == b"precious"
