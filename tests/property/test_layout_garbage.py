"""Whatever a layout's documents or an archive hold, reading returns or raises an error of ours."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from property.strategies import json_values
from support import fixtures
from support.layout_content import put_artifact

from ocitool import strictjson
from ocitool.errors import OciError
from ocitool.layout import ArchiveSource, ArchiveWriter, LayoutStore
from ocitool.layout.check import check, repair
from ocitool.layout.index import IndexJson
from ocitool.memory import MemoryStore
from ocitool.transfer import copy

DESCRIPTORS = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.just("application/vnd.oci.image.manifest.v1+json") | json_values,
        "digest": st.just("sha256:" + "0" * 64) | st.text(max_size=80) | json_values,
        "size": st.integers(-1, 10) | json_values,
        "annotations": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2) | json_values,
        "data": st.text(max_size=10) | json_values,
        "platform": json_values,
    },
)
INDEXES = st.fixed_dictionaries(
    {"schemaVersion": st.just(2) | json_values, "manifests": st.lists(DESCRIPTORS, max_size=3) | json_values}
)


@given(document=INDEXES.map(strictjson.dumps) | st.binary(max_size=200))
def test_any_index_is_read_and_written_again_or_refused(document: bytes) -> None:
    with contextlib.suppress(OciError):
        index = IndexJson(document)
        assert IndexJson(index.dump()).entries == index.entries


@settings(max_examples=50)
@given(
    index=INDEXES.map(strictjson.dumps) | st.binary(max_size=200), layout=st.binary(max_size=50) | st.none()
)
def test_a_layout_with_any_documents_is_checked_and_repaired(index: bytes, layout: bytes | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = LayoutStore(Path(directory) / "layout")
        desc = put_artifact(store, "one")
        store.tag(desc, "a")
        (store.path / "index.json").write_bytes(index)
        if layout is not None:
            (store.path / "oci-layout").write_bytes(layout)
        for read in (store.entries, store.tags, lambda: store.resolve("a"), lambda: store.referrers(desc)):
            with contextlib.suppress(OciError):
                read()
        repair(store)
        assert not [problem for problem in check(store) if problem.where in {"index.json", "oci-layout"}]
        assert str(store.resolve(str(desc.digest)).digest) == str(desc.digest)
        store.close()


@functools.cache
def archive() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar"
        with ArchiveWriter(path) as writer:
            copy(LayoutStore(fixtures.layout(), read_only=True), writer, "layers:1.0", to="example.org/x:1")
        return path.read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_archive_gives_the_image_or_an_error_of_ours(data: Any) -> None:
    content = bytearray(archive())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 4096))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar"
        path.write_bytes(content)
        with contextlib.suppress(OciError), ArchiveSource(path) as source:
            root = copy(source, MemoryStore(), source.tags()[0] if source.tags() else "")
            assert root.size >= 0
