"""What differs between two images."""

from __future__ import annotations

import pytest
from support.fixtures import layout
from support.unpack_images import image
from support.unpack_tars import MTIME, archive, directory, file, symlink

from ocitool.differing import Change, difference
from ocitool.errors import Unsupported
from ocitool.layout import LayoutStore

BASE = archive(
    directory(b"etc/"), file(b"etc/kept", b"k"), file(b"etc/gone", b"g"), file(b"etc/changed", b"1")
)
MORE = archive(file(b"etc/changed", b"2", mode=0o600), file(b"etc/.wh.gone"), symlink(b"etc/new", b"kept"))
FIRST = image(BASE, config={"Env": ["A=1"], "User": "0"})
SECOND = image(BASE, MORE, config={"Env": ["A=2"], "Cmd": ["sh"], "User": "0"})


def test_files_are_added_removed_and_changed_and_what_is_the_same_is_not_told() -> None:
    assert difference(FIRST, SECOND).files == (
        Change("changed", b"etc/changed", ("mode", "content")),
        Change("removed", b"etc/gone"),
        Change("added", b"etc/new"),
    )


def test_it_is_the_same_the_other_way_round() -> None:
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    there = [(turned[change.how], change.path) for change in difference(FIRST, SECOND).files]
    assert there == [(change.how, change.path) for change in difference(SECOND, FIRST).files]


def test_layers_are_shared_from_the_lowest_on() -> None:
    found = difference(FIRST, SECOND)
    assert (len(found.shared), len(found.removed_layers), len(found.added_layers)) == (1, 0, 1)


def test_settings_are_told_with_both_values() -> None:
    assert difference(FIRST, SECOND).config == {"Cmd": (None, ["sh"]), "Env": (["A=1"], ["A=2"])}


def test_an_image_does_not_differ_from_itself() -> None:
    found = difference(SECOND, SECOND)
    assert (found.files, found.config, found.removed_layers, found.added_layers) == ((), {}, (), ())


def test_a_time_counts_only_where_it_is_asked_for() -> None:
    earlier, later = image(archive(file(b"a"))), image(archive(file(b"a", mtime=MTIME + 1)))
    assert difference(earlier, later).files == ()
    assert difference(earlier, later, times=True).files == (Change("changed", b"a", ("mtime",)),)


def test_the_same_files_in_other_layers_are_the_same_files() -> None:
    together = image(archive(directory(b"etc/"), file(b"etc/a"), file(b"etc/b")))
    apart = image(archive(directory(b"etc/"), file(b"etc/a")), archive(file(b"etc/b")))
    assert difference(together, apart).files == ()


def test_an_index_is_no_image() -> None:
    store = LayoutStore(layout(), create=False)
    with pytest.raises(Unsupported, match="is an index"):
        difference((store, store.resolve("hello:1.0")), FIRST)
