"""What changed in a bundle becomes a layer, and the image with it unpacks to what the bundle is."""

from __future__ import annotations

import io
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.unpack_images import Image, gzipped, image, memory_directory
from support.unpack_tars import archive, directory, fifo, file, hardlink, pax, symlink
from support.unpack_trees import differences, tree

from ocitool import mediatypes
from ocitool.compression import decompressed
from ocitool.content import read_config, read_manifest
from ocitool.errors import InvalidContent, NotFound, Unsupported
from ocitool.model import Manifest
from ocitool.unpack.entries import Archive
from ocitool.unpack.repack import RepackOptions, repack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CREATED = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
BASE = [
    archive(
        directory(b"d/", mode=0o750),
        file(b"d/a", b"a"),
        file(b"d/b", b"b"),
        hardlink(b"d/twin", b"d/a"),
        directory(b"d/sub/"),
        file(b"d/sub/x", b"x"),
        symlink(b"l", b"d"),
        fifo(b"p"),
        file(b"same", b"same"),
    ),
    archive(file(b"d/.wh.b"), pax({b"SCHILY.xattr.user.k": b"v"}) + file(b"k", b"k")),
]


@pytest.fixture
def where() -> Iterator[Path]:
    with memory_directory() as directory:
        yield directory


def packed(found: Image, bundle: Path, **options: Any) -> Image:
    settings = RepackOptions(**{"created": CREATED, **options})
    return Image(found.store, repack(found.store, found.manifest, bundle, options=settings))


def names(found: Image) -> list[bytes]:
    """The entries of an image's last layer."""
    manifest = read_manifest(found.store, found.manifest)
    assert isinstance(manifest, Manifest)
    with found.store.fetch(manifest.layers[-1]) as blob:
        return [entry.path for entry in Archive(decompressed(blob, "layer"))]


def rewrite(path: Path, content: bytes) -> None:
    """Change a file's content, and nothing that is cheaper to compare."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def instead(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in a place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


ACTS: dict[str, tuple[Callable[[Path], object], list[bytes] | None]] = {
    "new file": (lambda root: (root / "new").write_bytes(b"new"), [b"", b"new"]),
    "same size and time": (lambda root: rewrite(root / "same", b"emas"), [b"same"]),
    "mode": (lambda root: (root / "same").chmod(0o4700), [b"same"]),
    "removed": (lambda root: (root / "same").unlink(), [b".wh.same", b""]),
    "removed tree": (lambda root: shutil.rmtree(root / "d"), [b".wh.d", b""]),
    "file to directory": (
        lambda root: instead(root / "same", lambda path: (path / "x").mkdir(parents=True)),
        None,
    ),
    "directory to file": (lambda root: instead(root / "d", lambda path: path.touch()), [b"", b"d"]),
    "link retargeted": (lambda root: instead(root / "l", lambda path: path.symlink_to("same")), [b"", b"l"]),
    "another name": (lambda root: os.link(root / "same", root / "twin"), [b"", b"same", b"twin"]),
    "twin changed": (lambda root: (root / "d/twin").write_bytes(b"other"), [b"d/a", b"d/twin"]),
    "attribute": (lambda root: os.setxattr(root / "d", "user.n", b"1"), [b"d"]),
    "attribute gone": (lambda root: os.removexattr(root / "k", "user.k"), [b"k"]),
    "fifo to file": (lambda root: instead(root / "p", lambda path: path.touch()), [b"", b"p"]),
    "names": (lambda root: (root / ("é" * 100)).write_bytes(b"x"), None),
    "odd name": (lambda root: os.mkdir(os.fsencode(root) + b"/\xff\n"), [b"", b"\xff\n"]),  # noqa: PTH102
    "large": (lambda root: (root / "large").write_bytes(os.urandom(3 << 20)), [b"", b"large"]),
    "time": (lambda root: os.utime(root / "d/a", ns=(5, 1_234_567_891)), [b"d/a", b"d/twin"]),
    "old time": (lambda root: os.utime(root / "l", ns=(5, -5), follow_symlinks=False), [b"l"]),
    "long target": (lambda root: (root / "far").symlink_to("t" * 3000), None),
}
if os.geteuid() == 0:
    ACTS["owner"] = (lambda root: os.chown(root / "k", 5_000_000, 6), [b"k"])
    ACTS["device"] = (lambda root: os.mknod(root / "null", 0o20600, os.makedev(1, 3)), [b"", b"null"])


@pytest.mark.parametrize("act", sorted(ACTS))
def test_what_changed_is_what_the_new_layer_holds(where: Path, act: str) -> None:
    change, expected = ACTS[act]
    found = image(*BASE)
    found.unpack(where / "bundle")
    change(where / "bundle" / "rootfs")
    # The image says that it was made in 2030: whatever the clock says here, no time is cut off.
    again = packed(found, where / "bundle", created=datetime(2200, 1, 1, tzinfo=UTC))
    if expected is not None:
        assert names(again) == expected
    again.unpack(where / "again")
    assert differences(tree(where / "again" / "rootfs"), tree(where / "bundle" / "rootfs")) == []
    assert sorted(path.name for path in where.iterdir()) == ["again", "bundle"]


def test_all_changes_at_once(where: Path) -> None:
    found = image(*BASE)
    for act in sorted(ACTS.keys() - {"directory to file", "removed tree", "removed", "file to directory"}):
        found.unpack(where / act)
        ACTS[act][0](where / act / "rootfs")
        again = packed(found, where / act, created=datetime(2200, 1, 1, tzinfo=UTC))
        again.unpack(where / f"{act} again")
        assert differences(tree(where / act / "rootfs"), tree(where / f"{act} again" / "rootfs")) == []
        found = again


def test_nothing_changed_is_the_image_itself(where: Path) -> None:
    found = image(*BASE, compress=gzipped)
    found.unpack(where / "bundle")
    assert packed(found, where / "bundle").manifest == found.manifest


@pytest.mark.parametrize("compress", ["gzip", "zstd", "none"])
def test_the_same_changes_make_the_same_image(where: Path, compress: str) -> None:
    made = []
    for name in "12":
        found = image(*BASE)
        found.unpack(where / name)
        (where / name / "rootfs" / "new").write_bytes(b"new" * 1000)  # at another time
        (where / name / "rootfs" / "d" / "a").unlink()
        made.append(packed(found, where / name, compress=compress, created=datetime(2001, 1, 1, tzinfo=UTC)))
    assert made[0].manifest == made[1].manifest
    made[0].unpack(where / "again")
    assert (where / "again" / "rootfs" / "new").stat().st_mtime == datetime(
        2001, 1, 1, tzinfo=UTC
    ).timestamp()


def test_the_documents_keep_what_they_held_and_tell_of_the_layer(where: Path) -> None:
    found = image(
        *BASE, config={"Cmd": ["x"]}, history=[{"created_by": "me"}], unknown={"kept": 1}, author="me"
    )
    found.unpack(where / "bundle")
    (where / "bundle" / "rootfs" / "new").touch()
    again = packed(found, where / "bundle", created_by="what", author="who", comment="why")
    manifest = read_manifest(again.store, again.manifest)
    assert isinstance(manifest, Manifest)
    config = read_config(again.store, manifest)
    assert len(manifest.layers) == len(config.diff_ids) == 3
    assert manifest.layers[-1].media_type == mediatypes.OCI_LAYER_GZIP
    assert config.fields["unknown"] == {"kept": 1}
    assert config.fields["created"] == "2030-01-02T03:04:05Z"
    assert config.fields["history"] == [
        {"created_by": "me"},
        {"created": "2030-01-02T03:04:05Z", "created_by": "what", "author": "who", "comment": "why"},
    ]


def test_what_lies_in_a_volume_is_left_out(where: Path) -> None:
    # conversion.md: "If a new image is created from a container based on the image described by this
    # configuration, data in these paths SHOULD NOT be included in the new image."
    found = image(archive(directory(b"data/", mtime=5)), config={"Volumes": {"/data": {}}})
    found.unpack(where / "bundle")
    (where / "bundle" / "rootfs" / "data" / "secret").touch()
    os.utime(where / "bundle" / "rootfs" / "data", ns=(5, 5 * 10**9))
    assert packed(found, where / "bundle").manifest == found.manifest


def test_a_volume_is_left_out_where_links_lead_to_it_and_under_its_other_names(where: Path) -> None:
    layer = archive(directory(b"run/"), directory(b"run/data/"), symlink(b"srv", b"/run"), directory(b"d/"))
    found = image(layer, config={"Volumes": {"/srv/data": {}}})
    found.unpack(where / "bundle")
    root = where / "bundle" / "rootfs"
    (root / "run" / "data" / "secret").touch()
    os.link(root / "run" / "data" / "secret", root / "d" / "twin")
    assert names(packed(found, where / "bundle")) == [b"d", b"d/twin"]


def test_a_volume_is_packed_where_that_is_wanted(where: Path) -> None:
    found = image(archive(directory(b"data/")), config={"Volumes": {"/data": {}}})
    found.unpack(where / "bundle")
    (where / "bundle" / "rootfs" / "data" / "wanted").touch()
    assert names(packed(found, where / "bundle", mask_volumes=False)) == [b"data", b"data/wanted"]


def test_what_is_masked_is_neither_added_nor_changed_nor_removed(where: Path) -> None:
    found = image(archive(file(b"a", b"1"), file(b"b", b"1"), directory(b"c/"), file(b"c/x", b"1")))
    found.unpack(where / "bundle")
    root = where / "bundle" / "rootfs"
    times = root.stat().st_mtime_ns
    (root / "a").write_bytes(b"2")
    (root / "b").unlink()
    (root / "c" / "x").write_bytes(b"2")
    (root / "c" / "y").touch()
    (root / "new").touch()
    os.utime(root, ns=(times, times))
    masked = packed(found, where / "bundle", mask_paths=["/a", "b/", "./c", "new"])
    assert masked.manifest == found.manifest
    assert names(packed(found, where / "bundle", mask_paths=["a", "c/x", "new"])) == [b".wh.b", b"c", b"c/y"]
    assert packed(found, where / "bundle", mask_paths=["/"]).manifest == found.manifest


def test_whiteouts_come_before_everything_else(where: Path) -> None:
    found = image(*BASE)
    found.unpack(where / "bundle")
    root = where / "bundle" / "rootfs"
    (root / "d" / "a").unlink()
    (root / "0").touch()
    assert names(packed(found, where / "bundle"))[0] == b"d/.wh.a"


@pytest.mark.parametrize(
    "path",
    [b"n" * 97, b"n" * 251, b"n" * 255, b"/".join([b"dir" * 20] * 5) + b"/name", b"d/\xff\n"],
    ids=["97 bytes", "251 bytes", "255 bytes", "a long way down", "odd bytes"],
)
def test_what_was_removed_stays_away_whatever_its_name(where: Path, path: bytes) -> None:
    found = image(archive(file(path, b"gone"), file(b"stays")))
    found.unpack(where / "bundle")
    os.unlink(os.fsencode(where / "bundle" / "rootfs") + b"/" + path)  # noqa: PTH108 - bytes
    packed(found, where / "bundle").unpack(where / "again")
    assert differences(tree(where / "again" / "rootfs"), tree(where / "bundle" / "rootfs")) == []


@pytest.mark.parametrize("name", [".wh.same", "d/.wh.", "d/.wh..wh..opq"])
def test_a_file_with_the_name_of_a_whiteout_is_refused(where: Path, name: str) -> None:
    found = image(*BASE)
    found.unpack(where / "bundle")
    (where / "bundle" / "rootfs" / name).touch()
    with pytest.raises(Unsupported, match=name):
        packed(found, where / "bundle")


def test_sockets_stay_behind(where: Path) -> None:
    import socket

    found = image(*BASE)
    found.unpack(where / "bundle")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(where / "bundle" / "rootfs" / "s"))
    assert names(packed(found, where / "bundle")) == [b""]


def test_what_is_no_bundle_is_said(where: Path) -> None:
    found = image(*BASE)
    with pytest.raises(NotFound, match="is no bundle"):
        packed(found, where / "gone")
    found.unpack(where / "bundle")
    (where / "bundle" / "config.json").write_text('{"linux": {"uidMappings": [{}], "gidMappings": [{}]}}')
    with pytest.raises(InvalidContent, match="id mappings"):
        packed(found, where / "bundle")


def test_a_rootless_bundle_is_packed_with_the_owners_that_were_meant(where: Path) -> None:
    found = image(archive(file(b"x", b"x", uid=1000, gid=7), file(b"y")))
    found.unpack(where / "bundle", rootless=True, keep_owner=False)
    root = where / "bundle" / "rootfs"
    rewrite(root / "x", b"z")
    (root / "mine").touch()
    again = packed(found, where / "bundle")
    manifest = read_manifest(again.store, again.manifest)
    assert isinstance(manifest, Manifest)
    with again.store.fetch(manifest.layers[-1]) as blob:
        content = decompressed(blob, "layer").read()
    owners = {entry.path: (entry.uid, entry.gid) for entry in Archive(io.BytesIO(content))}
    assert (owners[b"x"], owners[b"mine"]) == ((1000, 7), (0, 0))
    if os.geteuid() == 0:
        os.chown(root / "mine", 5, 5)
        with pytest.raises(Unsupported, match="does not exist in the container"):
            packed(found, where / "bundle")
