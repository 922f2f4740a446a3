"""A bundle appears whole and verified, or not at all."""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from support.disks import small_disk
from support.unpack_images import Image, gzipped, image, push
from support.unpack_tars import archive, directory, file, hardlink
from support.unpack_trees import tree

from ocitool import mediatypes, strictjson
from ocitool.digest import Digest
from ocitool.errors import (
    Conflict,
    IntegrityError,
    InvalidContent,
    NotFound,
    OciError,
    UnsafeContent,
    Unsupported,
)
from ocitool.events import Finished, Planned, Started
from ocitool.unpack import UnpackOptions, layers, staging, unpack
from ocitool.unpack.image import documents
from ocitool.unpack.overlay import LayerCache
from ocitool.unpack.tree import tree as tree_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.events import Event

TAR = archive(directory(b"etc/"), file(b"etc/x", b"content"), hardlink(b"y", b"etc/x"))


def nothing_is_left(where: Path) -> None:
    assert list(where.iterdir()) == []


def test_an_image_becomes_a_bundle(tmp_path: Path) -> None:
    found = image(TAR, archive(file(b"z", b"zz")), compress=gzipped, config={"Cmd": ["id"]})
    events: list[Event] = []
    options = UnpackOptions(rootless=False, keep_owner=os.geteuid() == 0)
    report = unpack(found.store, found.manifest, tmp_path / "b", options=options, on_event=events.append)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["config.json", "rootfs"]
    assert (tmp_path / "b" / "rootfs" / "etc" / "x").read_bytes() == b"content"
    assert (report.bundle, report.entries, report.bytes) == (tmp_path / "b", 4, 9)
    assert report.diff_ids[0] == Digest.of(TAR)
    assert [type(event) for event in events] == [Planned, Started, Finished, Started, Finished]


@pytest.mark.parametrize(
    "media_type", [mediatypes.OCI_LAYER_GZIP, mediatypes.DOCKER_LAYER, mediatypes.DOCKER_LAYER_ZSTD]
)
@pytest.mark.parametrize("compress", [bytes, gzipped, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_compression_is_told_by_the_bytes_and_not_by_the_media_type(
    tmp_path: Path, media_type: str, compress: Callable[[bytes], bytes]
) -> None:
    image(TAR, compress=compress, media_type=media_type).unpack(tmp_path / "b")
    assert (tmp_path / "b" / "rootfs" / "y").read_bytes() == b"content"


def test_an_estargz_layer_is_a_gzip_layer(tmp_path: Path) -> None:
    pieces = [TAR[n : n + 512] for n in range(0, len(TAR), 512)]
    footer = gzipped(b"")
    image(TAR, compress=lambda _: b"".join(map(gzipped, pieces)) + footer).unpack(tmp_path / "b")
    assert (tmp_path / "b" / "rootfs" / "y").is_file()


def test_a_chunked_zstd_layer_is_a_zstd_layer(tmp_path: Path) -> None:
    note = b"\x50\x2a\x4d\x18\x04\0\0\0toc!"
    pieces = [zstandard.compress(TAR[n : n + 512]) for n in range(0, len(TAR), 512)]
    image(TAR, compress=lambda _: note.join(pieces) + note).unpack(tmp_path / "b")
    assert (tmp_path / "b" / "rootfs" / "y").is_file()


@pytest.mark.parametrize("layers", [0, 1, 30])
def test_an_image_may_have_any_number_of_layers(tmp_path: Path, layers: int) -> None:
    image(*(archive(file(b"%d" % n)) for n in range(layers)), compress=gzipped).unpack(tmp_path / "b")
    assert len(tree(tmp_path / "b" / "rootfs")) == layers + 1


def test_lu_19_a_wrong_diff_id_is_found_before_anything_is_visible(tmp_path: Path) -> None:
    wrong = str(Digest.of(b"something else"))
    with pytest.raises(IntegrityError, match="as the config says"):
        image(TAR, diff_ids=[wrong]).unpack(tmp_path / "b")
    nothing_is_left(tmp_path)


class Tampered:
    """A source that gives other bytes than it promised."""

    def __init__(self, real: Image, change: Callable[[bytes], bytes]) -> None:
        self._real = real
        self._change = change

    def resolve(self, ref: str, /) -> Any:
        return self._real.store.resolve(ref)

    def fetch(self, desc: Any, /, *, offset: int = 0) -> Any:
        with self._real.store.fetch(desc, offset=offset) as reader:
            content = reader.read()
        is_layer = mediatypes.is_layer(desc.media_type)
        return io.BytesIO(self._change(content) if is_layer else content)


@pytest.mark.parametrize("compress", [bytes, gzipped, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: b"",
        lambda content: content * 2,
    ],
    ids=["short", "long", "flipped", "empty", "twice"],
)
def test_lu_19_damage_in_transit_is_named_as_such(
    tmp_path: Path, compress: Callable[[bytes], bytes], change: Callable[[bytes], bytes]
) -> None:
    tampered = Tampered(image(archive(file(b"x", os.urandom(4000))), compress=compress), change)
    with pytest.raises(IntegrityError) as caught:
        unpack(tampered, tampered._real.manifest, tmp_path / "b", options=UnpackOptions(sync=False))
    assert any("in layer sha256:" in note for note in caught.value.__notes__)
    nothing_is_left(tmp_path)


def test_a_flipped_bit_in_a_tar_header_is_damage_and_not_the_makers_fault(tmp_path: Path) -> None:
    tampered = Tampered(image(TAR), lambda content: content[:3] + b"?" + content[4:])
    manifest = tampered._real.manifest
    with pytest.raises(IntegrityError):
        unpack(tampered, manifest, tmp_path / "b")
    with pytest.raises(IntegrityError):
        tree_in_memory(tampered, manifest)
    cache = LayerCache(tmp_path / "cache", keep_owner=os.geteuid() == 0, options=UnpackOptions(sync=False))
    with pytest.raises(IntegrityError):
        cache.add(tampered, *documents(tampered, manifest))


@pytest.mark.parametrize(
    ("media_type", "match"),
    [
        (mediatypes.OCI_LAYER_NONDISTRIBUTABLE + "+gzip", "not distributable"),
        (mediatypes.DOCKER_LAYER_FOREIGN + ".gzip", "not distributable"),
        (mediatypes.OCI_LAYER_GZIP + "+encrypted", "encrypted"),
        ("application/vnd.erofs.layer.v1", "no file system layer"),
    ],
)
def test_layers_that_cannot_be_unpacked_are_refused_by_name(
    tmp_path: Path, media_type: str, match: str
) -> None:
    with pytest.raises(Unsupported, match=match):
        image(TAR, media_type=media_type).unpack(tmp_path / "b")
    nothing_is_left(tmp_path)


def test_images_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidContent, match="1 layers, but 2 diff IDs"):
        image(TAR, diff_ids=[str(Digest.of(TAR))] * 2).unpack(tmp_path / "b")
    with pytest.raises(Unsupported, match="for windows"):
        image(TAR, os="windows").unpack(tmp_path / "b")
    real = image(TAR)
    index = strictjson.dumps({"schemaVersion": 2, "manifests": [real.manifest.to_json()]})
    with pytest.raises(Unsupported, match="is an index"):
        unpack(real.store, push(real.store, mediatypes.OCI_INDEX, index), tmp_path / "b")
    empty = push(real.store, "application/vnd.oci.empty.v1+json", b"{}").to_json()
    artifact = {"schemaVersion": 2, "config": empty, "layers": [], "artifactType": "text/x"}
    with pytest.raises(Unsupported, match="artifact of the type text/x"):
        unpack(
            real.store, push(real.store, mediatypes.OCI_MANIFEST, strictjson.dumps(artifact)), tmp_path / "b"
        )
    nothing_is_left(tmp_path)


@pytest.mark.parametrize("there", ["file", "directory", "link"])
def test_what_exists_is_never_replaced(tmp_path: Path, there: str) -> None:
    bundle = tmp_path / "b"
    if there == "file":
        bundle.touch()
    elif there == "directory":
        bundle.mkdir()
    else:
        bundle.symlink_to("nowhere")
    with pytest.raises(Conflict):
        image(TAR).unpack(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_appears_meanwhile_is_not_replaced_either(tmp_path: Path) -> None:
    found = image(TAR)

    def make(_: Event) -> None:
        (tmp_path / "b").mkdir(exist_ok=True)

    with pytest.raises(Conflict):
        unpack(found.store, found.manifest, tmp_path / "b", on_event=make)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_listener_that_raises_ends_it_without_a_trace(tmp_path: Path) -> None:
    found = image(*[archive(file(b"x", bytes(1 << 20)))] * 5, compress=gzipped)

    def cancel(event: Event) -> None:
        if isinstance(event, Finished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(found.store, found.manifest, tmp_path / "b", on_event=cancel)
    nothing_is_left(tmp_path)


def test_limits_can_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(UnsafeContent, match="larger than"):
        image(TAR).unpack(tmp_path / "b", max_bytes=2000)
    with pytest.raises(UnsafeContent, match="more than 2 entries"):
        image(TAR).unpack(tmp_path / "b", max_entries=2)


def test_only_the_configuration_or_only_the_root_file_system(tmp_path: Path) -> None:
    found = image(TAR, config={"User": "7:8"})
    found.unpack(tmp_path / "a", config_only=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["config.json"]
    assert json.loads((tmp_path / "a" / "config.json").read_bytes())["process"]["user"] == {
        "uid": 7,
        "gid": 8,
    }
    found.unpack(tmp_path / "b", rootfs_only=True)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["rootfs"]


def test_users_are_looked_up_in_the_image_and_volumes_get_mounts(tmp_path: Path) -> None:
    tar = archive(
        file(b"etc/passwd", b"app:x:70:71::/home/app:/bin/sh\n"),
        file(b"etc/group", b"extra:x:99:app\n"),
        directory(b"data/", mode=0o1770, uid=70, gid=71),
        file(b"full/x"),
    )
    config = {"User": "app", "Volumes": {"/data": {}, "/full": {}, "/new/x": {}}}
    report = image(tar, config=config).unpack(tmp_path / "b")
    made = json.loads((tmp_path / "b" / "config.json").read_bytes())
    assert made["process"]["user"] == {"uid": 70, "gid": 71, "additionalGids": [99]}
    assert {mount["destination"]: mount["options"][2:] for mount in made["mounts"][-2:]} == {
        "/data": ["mode=1770", "uid=70", "gid=71"] if os.geteuid() == 0 else ["mode=1770"],
        "/new/x": ["mode=0755"],
    }
    assert report.volumes == ("/full",)


def test_a_template_that_is_not_there_or_no_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="gone"):
        image(TAR).unpack(tmp_path / "b", config_template=tmp_path / "gone.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InvalidContent, match="list"):
        image(TAR).unpack(tmp_path / "b", config_template=tmp_path / "list.json")


@pytest.mark.root
def test_a_full_file_system_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m") as small:
        with pytest.raises(OciError, match="No space left"):
            image(archive(file(b"big", bytes(3 << 20)))).unpack(small / "b")
        nothing_is_left(small)


def test_lu_27_everything_is_on_the_disk_before_the_bundle_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_sync, real_rename = staging._sync, Path.rename

    def sync(path: Path) -> None:
        order.append("sync")
        real_sync(path)

    def rename(path: Path, target: Path) -> Path:
        order.append("rename")
        return real_rename(path, target)

    monkeypatch.setattr(staging, "_sync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    found = image(TAR)
    unpack(found.store, found.manifest, tmp_path / "b")
    assert order == ["sync", "rename"]


def test_lu_27_a_kill_at_any_moment_leaves_no_bundle_or_a_whole_one(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
sys.path[:0] = ["tests", "."]
from support.unpack_images import image, gzipped
from support.unpack_tars import archive, file
layers = [archive(*(file(b"%d/%d" % (n, k), b"x" * 2000) for k in range(400))) for n in range(5)]
ready = image(*layers, compress=gzipped)
print("ready", flush=True)
ready.unpack(Path(sys.argv[1]))
"""
    whole = 0
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 60.0):
        bundle = tmp_path / f"b{delay}"
        child = subprocess.Popen([sys.executable, "-c", script, str(bundle)], stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline()
        with child.stdout:
            try:
                child.wait(delay)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
        child.wait()
        if bundle.exists():
            whole += 1
            assert len(tree(bundle / "rootfs")) == 5 * 401 + 1
            assert (bundle / "config.json").stat().st_size
    assert whole
    assert all(path.name.startswith((".b", "b")) for path in tmp_path.iterdir())


def test_syncing_uses_a_call_that_the_library_has() -> None:
    assert hasattr(ctypes.CDLL(None), "syncfs")


def test_layers_ahead_end_when_the_reader_leaves(tmp_path: Path) -> None:
    tars = [archive(file(b"x", bytes(30 << 20)))] * 3
    found = image(*tars, compress=gzipped)
    with layers.opened(
        found.store,
        [push(found.store, mediatypes.OCI_LAYER_GZIP, gzipped(tar)) for tar in tars],
        [Digest.of(tar) for tar in tars],
        limit=1 << 40,
    ) as streams:
        assert next(streams).read(512)
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
