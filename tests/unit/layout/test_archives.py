"""Archives: read in place, written whole, and never trusted."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from support import fixtures
from support.layout_content import blob, put, put_artifact

from ocitool.content import read_manifest
from ocitool.digest import Digest
from ocitool.errors import (
    Conflict,
    IntegrityError,
    InvalidContent,
    InvalidReference,
    NotFound,
    OciError,
    UnsafeContent,
    Unsupported,
)
from ocitool.events import Advanced
from ocitool.layout import ArchiveSource, ArchiveWriter, LayoutStore, archive_format
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor, Manifest
from ocitool.platforms import Platform
from ocitool.selection import Selection
from ocitool.transfer import copy

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.content import Source

FIXTURES = LayoutStore(fixtures.layout(), read_only=True)
FULL = "docker.io/library/hello:1.0"


def save(path: Path | str, ref: str, to: str, source: Source = FIXTURES, **options: Any) -> None:
    with ArchiveWriter(path) as archive:
        copy(source, archive, ref, to=to, **options)


def member_names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def tar(path: Path, *entries: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            archive.addfile(info, io.BytesIO(entry[1]))
    return path


def test_an_image_comes_back_as_it_went(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "hello:1.0", "1.0")
    with ArchiveSource(tmp_path / "a.tar") as archive:
        assert archive.tags() == ["1.0"]
        assert copy(archive, MemoryStore(), "1.0") == FIXTURES.resolve("hello:1.0")
        assert copy(archive, MemoryStore(), "") == FIXTURES.resolve("hello:1.0")
        assert (
            str(copy(archive, MemoryStore(), fixtures.digests()["hello:1.0"]))
            == fixtures.digests()["hello:1.0"]
        )


def test_referrers_travel_with_their_subject(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "hello:1.0", "1.0", referrers=True)
    root = FIXTURES.resolve("hello:1.0")
    assert FIXTURES.referrers(root)
    with ArchiveSource(tmp_path / "a.tar") as archive:
        back = MemoryStore()
        copy(archive, back, "1.0", referrers=True)
        assert list(back.referrers(root)) == FIXTURES.referrers(root)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    archives = []
    for jobs in (1, 8):
        path = tmp_path / f"{jobs}.tar"
        save(path, "layers:1.0", FULL, jobs=jobs)
        archives.append(path.read_bytes())
    assert archives[0] == archives[1]


def test_times_are_those_of_source_date_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    save(tmp_path / "a.tar", "hello:1.0", "1.0")
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in archive} == {(1_700_000_000, 0, 0, "")}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(OciError, match="SOURCE_DATE_EPOCH"):
        save(tmp_path / "a.tar", "hello:1.0", "1.0")


def test_documents_come_first_and_no_name_leaves_the_archive(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "layers:1.0", FULL)
    names = member_names(tmp_path / "a.tar")
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert all(name.startswith("blobs/sha256/") for name in names[3:])


def test_several_images_share_their_blobs(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.tar") as archive:
        for name in ("hello:1.0", "layers:1.0"):
            copy(FIXTURES, archive, name)
        copy(FIXTURES, archive, "hello:1.0", to="again")
    names = member_names(tmp_path / "a.tar")
    assert len(names) == len(set(names))
    with ArchiveSource(tmp_path / "a.tar") as source:
        assert source.tags() == ["again", "hello:1.0", "layers:1.0"]
        with pytest.raises(InvalidReference, match="2 images"):
            source.resolve("")


def test_what_docker_loads_is_one_platform_under_its_full_name(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "hello:1.0", FULL)
    with tarfile.open(tmp_path / "a.tar") as archive:
        (image,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        assert image["RepoTags"] == [FULL]
        assert {image["Config"], *image["Layers"]} <= set(archive.getnames())


def test_a_sparse_archive_has_for_docker_what_is_here(tmp_path: Path) -> None:
    for architecture in ("amd64", "arm64"):
        path = tmp_path / f"{architecture}.tar"
        platforms = Selection((Platform("linux", architecture),), sparse=True)
        save(path, "hello:1.0", FULL, platforms=platforms)
        with ArchiveSource(path) as source, tarfile.open(path) as archive:
            assert str(source.resolve(FULL).digest) == fixtures.digests()["hello:1.0"]
            (image,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
            config = json.load(archive.extractfile(image["Config"]) or io.BytesIO())
            assert config["architecture"] == architecture
            assert set(image["Layers"]) <= set(archive.getnames())


def test_an_image_with_layers_that_may_not_travel_is_nothing_for_docker(tmp_path: Path) -> None:
    store = MemoryStore()
    config = {"os": "windows", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}
    foreign = Descriptor.of("application/vnd.oci.image.layer.nondistributable.v1.tar", b"elsewhere")
    manifest = {
        "schemaVersion": 2,
        "config": put(
            store, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
        ).to_json(),
        "layers": [foreign.to_json()],
    }
    store.tag(put(store, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json"), "a")
    save(tmp_path / "a.tar", "a", "a", store)
    assert "manifest.json" not in member_names(tmp_path / "a.tar")


def test_a_mere_tag_names_no_repository_for_docker(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "layers:1.0", "12")
    with tarfile.open(tmp_path / "a.tar") as archive:
        (image,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
    assert image["RepoTags"] == []


def test_an_artifact_is_nothing_for_docker(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "artifact:1.0", "1.0")
    assert "manifest.json" not in member_names(tmp_path / "a.tar")
    with (
        pytest.raises(Unsupported, match="no image"),
        ArchiveWriter(tmp_path / "b.tar", "docker-archive") as archive,
    ):
        copy(FIXTURES, archive, "artifact:1.0")
    assert not (tmp_path / "b.tar").exists()


def test_every_algorithm_fits_into_a_tar_header(tmp_path: Path) -> None:
    store = MemoryStore()
    desc = blob(b"hello", "sha512")
    store.push(desc, io.BytesIO(b"hello"))
    save(tmp_path / "a.tar", str(desc.digest), "x", store)
    with ArchiveSource(tmp_path / "a.tar") as archive:
        assert copy(archive, MemoryStore(), "x").digest == desc.digest


def test_an_archive_that_fails_half_way_has_no_name(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "layout")
    store.tag(put_artifact(store, "text"), "a")
    path = tmp_path / "out" / "a.tar"
    path.parent.mkdir()
    path.write_bytes(b"the archive of yesterday")
    damaged = store.path / "blobs" / "sha256" / Digest.of(b"text").hex
    damaged.write_bytes(b"TEXT")
    with pytest.raises(IntegrityError):
        save(path, "a", "a", store)
    assert [p.name for p in path.parent.iterdir()] == ["a.tar"]
    assert path.read_bytes() == b"the archive of yesterday"


def test_an_archive_is_on_the_disk_before_it_gets_its_name_and_its_name_is_there_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def sync(fd: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        synced.append((kind, (tmp_path / "a.tar").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    save(tmp_path / "a.tar", "hello:1.0", "1.0")
    assert synced == [("file", False), ("directory", True)]


def test_an_error_on_the_way_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound), ArchiveWriter(tmp_path / "a.tar") as archive:
        copy(FIXTURES, archive, "no such image")
    assert not list(tmp_path.iterdir())


def test_progress_is_told_while_the_bytes_move(tmp_path: Path) -> None:
    events: list[object] = []
    with ArchiveWriter(tmp_path / "a.tar", on_event=events.append) as archive:
        copy(FIXTURES, archive, "layers:1.0")
    manifest = read_manifest(FIXTURES, FIXTURES.resolve("layers:1.0"))
    moved = sum(event.count for event in events if isinstance(event, Advanced))
    assert moved == sum(child.size for child in manifest.children)


def test_standard_output_and_input_will_do(tmp_path: Path) -> None:
    """One process writes into a pipe, the other one reads from it."""
    save(tmp_path / "a.tar", "layers:1.0", FULL)
    code = (
        "import sys; from ocitool.layout import *; from ocitool.memory import MemoryStore\n"
        "from ocitool.transfer import copy\n"
        "if sys.argv[1] == 'write':\n"
        "  with ArchiveWriter('-') as out:\n"
        "    copy(LayoutStore(sys.argv[2]), out, 'layers:1.0', to=sys.argv[3])\n"
        "else: print(copy(ArchiveSource('-'), MemoryStore(), ''))"
    )
    write = [sys.executable, "-c", code, "write", str(fixtures.layout()), FULL]
    written = subprocess.run(write, check=True, capture_output=True).stdout
    assert written == (tmp_path / "a.tar").read_bytes()
    read = [sys.executable, "-W", "ignore", "-c", code, "read"]
    through_a_pipe = subprocess.run(read, check=True, input=written, stdout=subprocess.PIPE).stdout
    assert through_a_pipe.decode().strip() == fixtures.digests()["layers:1.0"]
    with (tmp_path / "a.tar").open("rb") as file:
        assert subprocess.run(read, check=True, stdin=file, stdout=subprocess.PIPE).stdout == through_a_pipe


def test_a_compressed_archive_is_read_too(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "layers:1.0", "1.0")
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    with ArchiveSource(tmp_path / "a.tar.gz") as archive:
        assert str(copy(archive, MemoryStore(), "1.0")) == fixtures.digests()["layers:1.0"]


# What docker save writes


def docker_archive(path: Path, **changes: Any) -> Path:
    """An archive as docker wrote them before version 25."""
    layers = [b"layer one", b"layer two"]
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
        }
    ).encode()
    image = {
        "Config": f"{Digest.of(config).hex}.json",
        "RepoTags": ["hello:1.0", "127.0.0.1:5000/x/hello:latest"],
        "Layers": ["one/layer.tar", "two/layer.tar"],
    }
    link = tarfile.TarInfo("two/layer.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "../three/layer.tar"
    entries: list[tuple[str, bytes] | tarfile.TarInfo] = [
        (f"{Digest.of(config).hex}.json", config),
        ("one/layer.tar", layers[0]),
        link,
        ("three/layer.tar", layers[1]),
        ("manifest.json", json.dumps([image | changes]).encode()),
    ]
    return tar(path, *entries)


def test_docker_archives_are_read_as_images(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar")
    assert archive_format(path) == "docker-archive"
    with ArchiveSource(path) as archive:
        assert archive.tags() == ["127.0.0.1:5000/x/hello:latest", "docker.io/library/hello:1.0"]
        roots = {
            copy(archive, MemoryStore(), ref) for ref in ("", "hello:1.0", FULL, "127.0.0.1:5000/x/hello")
        }
        (root,) = roots
        manifest = read_manifest(archive, root)
        assert isinstance(manifest, Manifest)
        assert [layer.digest for layer in manifest.layers] == [
            Digest.of(b"layer one"),
            Digest.of(b"layer two"),
        ]
        assert archive.resolve(str(root.digest)) == root


def test_compressed_layers_of_docker_archives_are_named_by_their_bytes(tmp_path: Path) -> None:
    layer = gzip.compress(b"layer")
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"layer"))]},
        }
    ).encode()
    image = {"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}
    path = tar(
        tmp_path / "a.tar",
        ("config.json", config),
        ("layer.tar", layer),
        ("manifest.json", json.dumps([image]).encode()),
    )
    with ArchiveSource(path) as archive:
        manifest = read_manifest(archive, copy(archive, MemoryStore(), ""))
        assert isinstance(manifest, Manifest)
        assert manifest.layers[0].digest == Digest.of(layer)
        assert manifest.layers[0].media_type.endswith("+gzip")


def test_a_hybrid_archive_counts_as_a_layout(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "layers:1.0", FULL)
    assert archive_format(tmp_path / "a.tar") == "oci-archive"


# Hostile archives


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "blobs/../../evil"])
def test_im_05_names_outside_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeContent, match="a member named"):
        ArchiveSource(tar(tmp_path / "a.tar", (name, b"x")))


@pytest.mark.parametrize(
    "changes",
    [
        {"Layers": ["../../etc/passwd", "two/layer.tar"]},
        {"Layers": ["/etc/passwd", "two/layer.tar"]},
        {"Layers": ["missing", "two/layer.tar"]},
        {"Layers": ["one/layer.tar"]},
        {"Layers": "one/layer.tar"},
        {"Layers": [1, 2]},
        {"Config": "../../etc/passwd"},
        {"Config": 7},
        {"Config": "one/layer.tar"},
        {"RepoTags": ["../../x:latest"]},
        {"RepoTags": ["two\nlines:latest"]},
        {"RepoTags": ["x" * (1 << 20)]},
        {"RepoTags": "x"},
    ],
    ids=str,
)
def test_im_05_hostile_fields_of_manifest_json_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises((InvalidContent, NotFound, InvalidReference)):
        ArchiveSource(docker_archive(tmp_path / "a.tar", **changes))


def test_im_05_an_image_id_that_is_not_the_configurations_digest_is_refused(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar")
    wrong = "0" * 64 + ".json"
    entries: list[tuple[str, bytes] | tarfile.TarInfo] = []
    with tarfile.open(path) as archive:
        for info in archive:
            content = (archive.extractfile(info) or io.BytesIO()).read() if info.isreg() else b""
            if info.name == "manifest.json":
                (image,) = json.loads(content)
                content = json.dumps([{**image, "Config": wrong}]).encode()
            if info.name.endswith(".json") and info.name != "manifest.json":
                entries.append((wrong, content))
            else:
                entries.append((info.name, content) if info.isreg() else info)
    with pytest.raises(IntegrityError, match="not the one that its name says"):
        ArchiveSource(tar(tmp_path / "b.tar", *entries))


def test_im_05_a_layer_that_is_not_its_diff_id_is_found_when_copied(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes().replace(b"layer one", b"layer 0ne"))
    with ArchiveSource(path) as archive, pytest.raises(IntegrityError):
        copy(archive, MemoryStore(), "")


@pytest.mark.parametrize("target", ["../../../etc/passwd", "/etc/passwd"])
def test_im_05_links_out_of_the_archive_are_refused(tmp_path: Path, target: str) -> None:
    path = tar(tmp_path / "a.tar", link("manifest.json", target), ("x", b""))
    with pytest.raises(UnsafeContent, match="not inside it"):
        ArchiveSource(path)


def test_im_05_links_in_a_circle_end(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", link("manifest.json", "b"), link("b", "manifest.json"))
    with pytest.raises(UnsafeContent, match="links"):
        ArchiveSource(path)


@pytest.mark.parametrize("target", ["../../../etc/passwd", "/etc/passwd", "missing"])
def test_im_05_hard_links_lead_nowhere_else(tmp_path: Path, target: str) -> None:
    path = tar(tmp_path / "a.tar", ("x", b""), link("manifest.json", target, tarfile.LNKTYPE))
    with pytest.raises((UnsafeContent, NotFound)):
        ArchiveSource(path)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_im_05_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InvalidContent, match="neither a file nor a directory"):
        ArchiveSource(tar(tmp_path / "a.tar", ("x", b""), link("manifest.json", "x", kind)))


@pytest.mark.parametrize("name", ["manifest.json", "index.json", "./manifest.json"])
def test_im_05_the_same_file_twice_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidContent, match="twice"):
        ArchiveSource(tar(tmp_path / "a.tar", (name.removeprefix("./"), b"[]"), (name, b"[1]")))


def test_im_05_a_huge_manifest_json_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("manifest.json")
    info.size = 1 << 30
    with path.open("wb") as file:
        file.write(info.tobuf())
        file.truncate(512 + info.size + 1024)
    with pytest.raises(UnsafeContent, match="at most"):
        ArchiveSource(path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_im_05_a_huge_header_is_not_read(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("header")
    info.size, info.type = 1 << 30, kind
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + info.size + 1024)
    with pytest.raises(UnsafeContent, match="header"):
        ArchiveSource(path)


def test_im_05_headers_that_go_backwards_end(tmp_path: Path) -> None:
    """A negative size made the standard library read the same header for ever (CVE-2025-8194)."""
    path = tmp_path / "a.tar"
    for size in (-512, -1024, -(1 << 40)):
        first, second = tarfile.TarInfo("one"), bytearray(tarfile.TarInfo("two").tobuf())
        second[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
        second[148:156] = b" " * 8
        second[148:156] = b"%06o\0 " % sum(second)
        path.write_bytes(first.tobuf() + bytes(second) + bytes(1024))
        with pytest.raises((InvalidContent, NotFound)):
            ArchiveSource(path)


def test_im_05_many_headers_in_a_row_end(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    (tmp_path / "a.tar").write_bytes(header.tobuf() * 5000 + bytes(1024))
    with pytest.raises(InvalidContent):
        ArchiveSource(tmp_path / "a.tar")


def test_im_05_more_files_than_any_archive_has_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocitool.layout.tarfiles._MAX_FILES", 3)
    with pytest.raises(UnsafeContent, match="more than 3 files"):
        ArchiveSource(tar(tmp_path / "a.tar", *[(name, b"") for name in "abcd"]))


@pytest.mark.parametrize(
    "content", [b"", b"no tar", bytes(10240), os.urandom(2000)], ids=["empty", "text", "zeros", "noise"]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises((InvalidContent, IntegrityError)):
        ArchiveSource(tmp_path / "a")


def test_a_tar_file_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        ArchiveSource(tar(tmp_path / "a.tar", ("readme", b"hello")))
    assert "manifest.json" in caught.value.hint


def test_a_truncated_archive_is_found(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "layers:1.0", "1.0")
    content = (tmp_path / "a.tar").read_bytes()
    for end in range(0, len(content) - 10240, 1000):
        (tmp_path / "b.tar").write_bytes(content[:end])
        with pytest.raises(OciError), ArchiveSource(tmp_path / "b.tar") as archive:
            copy(archive, MemoryStore(), "")


def test_a_part_of_an_archive_ends_where_it_ends(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "hello:1.0", "1.0")
    with ArchiveSource(tmp_path / "a.tar") as archive:
        root = archive.resolve("1.0")
        with archive.fetch(root) as reader:
            assert [len(reader.read(2)), len(reader.read(3))] == [2, 3]
        with archive.fetch(root, offset=root.size + 1) as reader:
            assert reader.read(1) == b""


def test_an_archive_that_becomes_shorter_while_it_is_read_is_found(tmp_path: Path) -> None:
    save(tmp_path / "a.tar", "hello:1.0", "1.0")
    with ArchiveSource(tmp_path / "a.tar") as archive, archive.fetch(archive.resolve("1.0")) as reader:
        os.truncate(tmp_path / "a.tar", 512)
        with pytest.raises(InvalidContent, match="has become shorter"):
            reader.read()


def test_no_archive_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"the archive a\.tar is not in the directory"):
        ArchiveSource(tmp_path / "a.tar")


def test_a_directory_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="is a directory") as caught:
        ArchiveSource(tmp_path)
    assert "oci:" in caught.value.hint


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"the archive a\.tar is not in the directory"):
        save(tmp_path / "missing" / "a.tar", "layers:1.0", "1.0")


def test_im_06_an_archive_moves_only_the_name_that_was_asked_for(tmp_path: Path) -> None:
    """containerd CVE-2026-50195: an import named itself as an image that people trust."""
    store = LayoutStore(tmp_path / "layout")
    trusted = put_artifact(store, "trusted")
    store.tag(trusted, FULL)
    hostile = MemoryStore()
    desc = put_artifact(hostile, "hostile")
    hostile.tag(desc, "a")
    save(tmp_path / "a.tar", "a", FULL, hostile)
    with ArchiveSource(tmp_path / "a.tar") as archive:
        copy(archive, store, "", to="imported")
    assert store.resolve(FULL) == trusted
    assert store.resolve("imported") == desc
    assert store.tags() == [FULL, "imported"]


def test_one_byte_of_an_index_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidContent, match=r"index\.json"):
        ArchiveSource(tar(tmp_path / "a.tar", ("oci-layout", b"{}"), ("index.json", b"{")))


def test_content_is_found_by_its_digest(tmp_path: Path) -> None:
    store = MemoryStore()
    root = put_artifact(store, "one")
    store.tag(root, "a")
    layer = put(store, b"one")
    save(tmp_path / "a.tar", "a", "a", store)
    with ArchiveSource(tmp_path / "a.tar") as archive:
        assert archive.resolve(str(layer.digest)) == layer
        with pytest.raises(NotFound):
            archive.resolve(str(Digest.of(b"nothing")))


# The writer as a store


def test_what_was_promised_to_an_archive_can_be_read_before_it_is_written(tmp_path: Path) -> None:
    archive = ArchiveWriter(tmp_path / "a.tar")
    root = copy(FIXTURES, archive, "layers:1.0", to="1.0")
    assert archive.resolve("1.0") == archive.resolve(str(root.digest)) == root
    layer = read_manifest(archive, root).children[-1]
    assert archive.resolve(str(layer.digest)) == layer
    with archive.fetch(layer, offset=1) as ours, FIXTURES.fetch(layer, offset=1) as theirs:
        assert ours.read() == theirs.read()
    with archive.fetch(root, offset=1) as reader:
        assert b"{" + reader.read() == read_manifest(FIXTURES, root).raw
    assert copy(archive, MemoryStore(), "1.0") == root
    assert not (tmp_path / "a.tar").exists()


def test_an_archive_names_only_what_it_has(tmp_path: Path) -> None:
    archive = ArchiveWriter(tmp_path / "a.tar")
    desc = blob(b"hello")
    with pytest.raises(NotFound):
        archive.tag(desc, "a")
    with pytest.raises(NotFound), archive.fetch(desc):
        pass
    with pytest.raises(NotFound):
        archive.resolve(str(desc.digest))


def test_a_blob_too_large_for_memory_is_not_pushed_into_an_archive(tmp_path: Path) -> None:
    huge = Descriptor("a/b", Digest.of(b""), 1 << 40)
    with pytest.raises(Unsupported, match="from their source"):
        ArchiveWriter(tmp_path / "a.tar").push(huge, io.BytesIO())


def test_an_archive_is_not_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(Conflict, match="terminal"):
        save("-", "layers:1.0", "1.0")


@pytest.mark.parametrize("name", ["Upper/Case:1", "example.org/x@" + str(Digest.of(b"")), "a:b:c"])
def test_names_that_docker_could_not_take_are_left_out_for_it(tmp_path: Path, name: str) -> None:
    save(tmp_path / "a.tar", "layers:1.0", name)
    with tarfile.open(tmp_path / "a.tar") as archive:
        (image,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
    assert image["RepoTags"] == []
    with ArchiveSource(tmp_path / "a.tar") as source:
        assert source.tags() == [name]


@pytest.mark.parametrize("document", [b"{}", b"[]", b"[1]", b"null", b"{", b"[[]]"])
def test_a_manifest_json_that_lists_no_images_is_refused(tmp_path: Path, document: bytes) -> None:
    with pytest.raises(InvalidContent, match=r"manifest\.json|image 0"):
        ArchiveSource(tar(tmp_path / "a.tar", ("manifest.json", document)))
