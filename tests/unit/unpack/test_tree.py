"""The tree in memory, held to what unpacking really makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fixtures import layout
from support.peers import require_root
from support.unpack_facts import in_memory, on_disk
from support.unpack_images import image, memory_directory, unpacked
from support.unpack_tars import archive, directory, file, hardlink, symlink

from ocitool.errors import InvalidContent, OciError, UnsafeContent
from ocitool.layout import LayoutStore
from ocitool.platforms import host
from ocitool.selection import choose
from ocitool.unpack import UnpackOptions, unpack
from ocitool.unpack.tree import tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["layers:1.0", "zstd:1.0", "hello:1.0"])
def test_a_fixture_image_is_what_unpacking_makes_of_it(tmp_path: Path, name: str) -> None:
    require_root()
    store = LayoutStore(layout(), create=False)
    chosen = choose(store, store.resolve(name), host())
    unpack(store, chosen, tmp_path / "bundle", options=UnpackOptions(sync=False))
    assert in_memory(tree(store, chosen)) == on_disk(tmp_path / "bundle" / "rootfs")


def test_a_real_image_is_what_unpacking_makes_of_it(tmp_path: Path, debian_layout: Path) -> None:
    require_root()
    store = LayoutStore(debian_layout, create=False)
    chosen = store.resolve("12")
    unpack(store, chosen, tmp_path / "bundle", options=UnpackOptions(sync=False))
    assert in_memory(tree(store, chosen)) == on_disk(tmp_path / "bundle" / "rootfs")


PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)
TARGETS = st.sampled_from([b"a", b"/b", b"../c", b"../../..", b"c/a", b"/"])


ACTS = st.one_of(
    st.tuples(st.just("file"), PATHS, st.binary(max_size=2)),
    st.tuples(st.just("directory"), PATHS, st.just(b"")),
    st.tuples(st.just("symlink"), PATHS, TARGETS),
    st.tuples(st.just("hardlink"), PATHS, PATHS),
    st.tuples(st.just("whiteout"), PATHS, st.just(b"")),
    st.tuples(st.just("opaque"), PATHS, st.just(b"")),
)


def entry(act: str, path: bytes, value: bytes) -> bytes:
    above, _, name = path.rpartition(b"/")
    return {
        "file": file(path, value),
        "directory": directory(path + b"/", mode=0o711),
        "symlink": symlink(path, value),
        "hardlink": hardlink(path, value),
        "whiteout": file((above + b"/" if above else b"") + b".wh." + name),
        "opaque": file(path + b"/.wh..wh..opq"),
    }[act]


@given(acts=st.lists(st.lists(ACTS, max_size=5), min_size=1, max_size=4))
@settings(max_examples=150)
def test_random_layers_make_the_same_tree_or_are_refused_alike(
    acts: list[list[tuple[str, bytes, bytes]]],
) -> None:
    require_root()
    layers = [archive(*(entry(*act) for act in layer)) for layer in acts]
    with memory_directory() as where:
        try:
            made = in_memory(tree(*image(*layers)))
        except OciError:
            with pytest.raises(OciError):
                unpacked(where / "bundle", *layers)
        else:
            assert made == on_disk(unpacked(where / "bundle", *layers))


def test_a_path_through_too_many_links_is_refused() -> None:
    loop = archive(symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x"))
    with pytest.raises(UnsafeContent, match="too many symbolic links"):
        tree(*image(loop))


def test_a_hard_link_to_nothing_is_refused_with_the_layer() -> None:
    with pytest.raises(InvalidContent, match="which is no file") as refused:
        tree(*image(archive(hardlink(b"a", b"b"))))
    assert refused.value.__notes__[0].startswith("in layer sha256:")
