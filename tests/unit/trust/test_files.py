"""Files beside an image: the same bytes each time, and back into a directory and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.stores import FlakyStore, Listless, lies, put, put_image, put_index, put_json

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.errors import (
    Conflict,
    IntegrityError,
    InvalidReference,
    NotFound,
    OciError,
    UnsafeContent,
    Unsupported,
)
from ocitool.events import Advanced, Event, Finished, Planned
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.transfer import copy_graph
from ocitool.trust import File, artifact_of, attach, fetch
from ocitool.trust.attaching import TITLE

if TYPE_CHECKING:
    from ocitool.model import Descriptor

SBOM = "application/spdx+json"


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    (tmp_path / "sbom.json").write_text('{"bom": 1}')
    (tmp_path / "notes").write_bytes(b"")
    return [File(tmp_path / "sbom.json", SBOM), File(tmp_path / "notes")]


def artifact(store: MemoryStore, *layers: tuple[str | None, bytes]) -> Descriptor:
    """An artifact whose files have these titles."""
    return put_json(
        store,
        mediatypes.OCI_MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "artifactType": SBOM,
            "config": put(store, mediatypes.OCI_EMPTY, b"{}").to_json(),
            "layers": [
                put(store, SBOM, raw, annotations={} if title is None else {TITLE: title}).to_json()
                for title, raw in layers
            ],
        },
    )


def test_an_artifact_is_what_the_specification_says_and_the_same_each_time(files: list[File]) -> None:
    store, again = MemoryStore(), MemoryStore()
    image = put_image(store, marked=True)
    said = {"b": "2", "a": "1"}
    desc = attach(store, image, files, artifact_type=SBOM, annotations=said)
    assert attach(again, put_image(again), files, artifact_type=SBOM, annotations=said) == desc
    manifest: dict[str, Any] = json.loads(store._content[desc.digest])
    assert list(manifest) == [
        "schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations",
    ]  # fmt: skip
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert [(layer["mediaType"], layer["annotations"]) for layer in manifest["layers"]] == [
        (SBOM, {TITLE: "sbom.json"}),
        ("application/octet-stream", {TITLE: "notes"}),
    ]
    assert manifest["subject"] == {
        "mediaType": mediatypes.OCI_MANIFEST, "digest": str(image.digest), "size": image.size
    }  # fmt: skip
    (listed,) = store.referrers(image, SBOM)
    assert (listed, dict(listed.annotations)) == (desc, {"a": "1", "b": "2"})


def test_files_come_back_as_they_were_from_a_layout_too(files: list[File], tmp_path: Path) -> None:
    memory, layout = MemoryStore(), LayoutStore(tmp_path / "layout")
    image = put_image(memory)
    copy_graph(memory, layout, image, to="1")
    desc = attach(layout, image, files, artifact_type=SBOM)
    assert list(layout.referrers(image)) == [desc]
    out = tmp_path / "new" / "out"
    assert fetch(layout, desc, out) == [out / "sbom.json", out / "notes"]
    for file in files:
        assert (out / file.path.name).read_bytes() == file.path.read_bytes()


def test_what_cannot_be_attached_is_told(files: list[File], tmp_path: Path) -> None:
    store = MemoryStore()
    image = put_image(store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_bytes(b"2")
    for wrong, kind in (
        ([], InvalidReference),
        ([*files, File(tmp_path / "other" / "notes")], InvalidReference),
        ([File(tmp_path / "sbom.json", "json")], InvalidReference),
        ([File(tmp_path / "nowhere")], NotFound),
        ([File(tmp_path / "other")], OciError),
    ):
        with pytest.raises(kind):
            attach(store, image, wrong, artifact_type=SBOM)
    with pytest.raises(InvalidReference, match="'sbom' is no media type"):
        attach(store, image, files, artifact_type="sbom")


def test_a_file_that_changes_meanwhile_is_not_attached(files: list[File]) -> None:
    store = MemoryStore()
    image = put_image(store)

    def change(event: Event) -> None:
        if isinstance(event, Planned):
            files[0].path.write_text('{"bom": 2}')

    with pytest.raises(IntegrityError):
        attach(store, image, files, artifact_type=SBOM, on_event=change)
    assert list(store.referrers(image)) == []


def test_whoever_watches_is_told_of_every_byte(files: list[File], tmp_path: Path) -> None:
    store = MemoryStore()
    up: list[Event] = []
    down: list[Event] = []
    desc = attach(store, put_image(store), files, artifact_type=SBOM, on_event=up.append)
    fetch(store, desc, tmp_path / "out", on_event=down.append)
    for events in (up, down):
        moved = {event.descriptor.digest: event.count for event in events if isinstance(event, Advanced)}
        assert moved[Digest.of(b'{"bom": 1}')] == 10
        assert sum(isinstance(event, Finished) for event in events) >= len(files)


@pytest.mark.parametrize(
    "title",
    ["../out", "..", ".", "/etc/passwd", "a/b", "a/../../b", "x" * 256, "a\0b", "a\nb", "\x1b[2J", "\u202e"],
)
def test_rc_25_a_title_that_leads_elsewhere_is_refused_before_anything_is_written(
    tmp_path: Path, title: str
) -> None:
    store = MemoryStore()
    desc = artifact(store, ("good", b"1"), (title, b"2"))
    with pytest.raises(UnsafeContent, match="no name for one in a directory"):
        fetch(store, desc, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_rc_25_a_link_that_is_there_is_not_followed_and_no_file_is_replaced(tmp_path: Path) -> None:
    store = MemoryStore()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "target")
    (tmp_path / "out" / "file").write_text("mine")
    for title in ("link", "file"):
        with pytest.raises(Conflict, match=f"{title} is there already"):
            fetch(store, artifact(store, (title, b"theirs")), tmp_path / "out")
    assert not (tmp_path / "target").exists()
    assert (tmp_path / "out" / "file").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["file", "link"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(UnsafeContent):
        fetch(store, artifact(store, ("a", b"1"), ("a", b"2")), tmp_path / "out")


def test_a_file_without_a_title_is_called_by_its_digest(tmp_path: Path) -> None:
    store = MemoryStore()
    (path,) = fetch(store, artifact(store, (None, b"1")), tmp_path)
    assert path.name == put(store, SBOM, b"1").digest.hex


def test_of_what_is_not_as_it_should_be_nothing_is_left(tmp_path: Path) -> None:
    store = FlakyStore()
    desc = artifact(store, ("file", b"right"))
    store.plan(put(store, SBOM, b"right"), lies(b"wrong"))
    with pytest.raises(IntegrityError):
        fetch(store, desc, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_without_files_and_an_index_have_none(tmp_path: Path) -> None:
    store = MemoryStore()
    image = put_image(store)
    empty = put(store, mediatypes.OCI_EMPTY, b"{}")
    assert fetch(store, put_image(store, layers=[empty]), tmp_path) == []
    with pytest.raises(Unsupported, match="holds no files"):
        fetch(store, put_index(store, [image]), tmp_path)


def test_where_no_list_is_kept_nothing_is_found_by_its_type() -> None:
    store = MemoryStore()
    with pytest.raises(Unsupported, match="no list is kept there"):
        artifact_of(Listless(store), put_image(store), SBOM)


def test_a_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(OciError, match="/proc/a can't be written"):
        fetch(store, artifact(store, ("a", b"1")), Path("/proc"))


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    store = MemoryStore()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OciError, match="nothing can be written to"):
        fetch(store, artifact(store, ("a", b"1")), tmp_path / "file")
