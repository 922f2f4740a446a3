"""LU-13, LU-14, LU-20 to LU-23, LU-28: files come out as the layer describes them."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest
from support.unpack_images import image, unpacked
from support.unpack_tars import archive, directory, fifo, file, hardlink, header, padded, pax, symlink
from support.unpack_trees import tree

from ocitool.errors import OciError

if TYPE_CHECKING:
    from pathlib import Path

root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep


@root
@pytest.mark.root
def test_lu_13_setuid_and_capabilities_survive_the_change_of_owner(tmp_path: Path) -> None:
    tar = archive(
        pax({b"SCHILY.xattr.security.capability": CAPABILITY})
        + file(b"ping", b"x", uid=7, gid=8, mode=0o755),
        file(b"su", b"x", uid=1234, gid=5678, mode=0o6755),
        directory(b"shared/", uid=7, gid=8, mode=0o3775),
        fifo(b"pipe", uid=7, gid=8, mode=0o4600),
    )
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert os.getxattr(rootfs / "ping", "security.capability") == CAPABILITY
    found = {name: (node.mode, node.uid, node.gid) for name, node in tree(rootfs).items()}
    assert found["su"] == (0o6755, 1234, 5678)
    assert found["shared"] == (0o3775, 7, 8)
    assert found["pipe"] == (0o4600, 7, 8)


@root
@pytest.mark.root
def test_owners_of_links_and_of_what_lies_in_a_setgid_directory(tmp_path: Path) -> None:
    tar = archive(
        directory(b"d/", gid=50, mode=0o2755), file(b"d/x"), symlink(b"l", b"nowhere", uid=3, gid=4)
    )
    found = {name: (node.uid, node.gid) for name, node in tree(unpacked(tmp_path / "bundle", tar)).items()}
    assert found["d/x"] == (0, 0)
    assert found["l"] == (3, 4)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o177])
@pytest.mark.parametrize("mode", [0, 0o444, 0o666, 0o777, 0o1777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        rootfs = unpacked(
            tmp_path / "bundle", archive(file(b"x", b"body", mode=mode), directory(b"d/", mode=mode))
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE((rootfs / "x").stat().st_mode) == mode
    assert stat.S_IMODE((rootfs / "d").stat().st_mode) == mode


def test_a_directory_that_shuts_out_its_owner_is_filled_all_the_same(tmp_path: Path) -> None:
    tar = archive(directory(b"d/", mode=0), file(b"d/e/x", b"deep"), directory(b"d/e/", mode=0o100))
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert stat.S_IMODE((rootfs / "d").stat().st_mode) == 0


def test_lu_14_attributes_of_the_makers_host_are_left_out_and_counted(tmp_path: Path) -> None:
    foreign = [
        b"security.selinux",
        b"security.evm",
        b"trusted.overlay.opaque",
        b"trusted.overlay.redirect",
        b"user.overlay.opaque",
        b"user.overlay.whiteout",
        b"user.fuseoverlayfs.opaque",
        b"system.nfs4_acl",
        b"system.nfs4acl",
        b"user.rootlesscontainers",
    ]
    extra = pax({b"SCHILY.xattr." + key: b"y" for key in [*foreign, b"user.kept"]})
    report = image(archive(extra + file(b"x"), extra + directory(b"d/"))).unpack(tmp_path / "bundle")
    rootfs = tmp_path / "bundle" / "rootfs"
    assert os.listxattr(rootfs / "x") == os.listxattr(rootfs / "d") == ["user.kept"]
    assert report.filtered == 2 * len(foreign)


@root
@pytest.mark.root
def test_lu_14_an_access_control_list_is_applied(tmp_path: Path) -> None:
    acl = bytes.fromhex(
        "02000000 01000600ffffffff 0200070005000000 04000400ffffffff 10000700ffffffff 20000000ffffffff"
    )
    extra = pax({b"SCHILY.xattr.system.posix_acl_access": acl})
    rootfs = unpacked(tmp_path / "bundle", archive(extra + file(b"x", mode=0o670)))
    assert os.getxattr(rootfs / "x", "system.posix_acl_access") == acl


@root
@pytest.mark.root
def test_lu_14_a_list_that_is_none_is_an_error_that_names_the_attribute(tmp_path: Path) -> None:
    extra = pax({b"SCHILY.xattr.system.posix_acl_access": b"\2\0\0\0odd"})
    with pytest.raises(OciError, match=r"attribute 'system\.posix_acl_access': Invalid"):
        unpacked(tmp_path / "bundle", archive(extra + file(b"x")))


def test_lu_14_what_the_kernel_refuses_is_counted_and_not_fatal(tmp_path: Path) -> None:
    # user_namespaces(7) aside, user attributes exist only on files and directories.
    extra = pax({b"SCHILY.xattr.user.a": b"1"})
    report = image(archive(extra + symlink(b"l", b"x"), extra + fifo(b"p"), file(b"x"))).unpack(
        tmp_path / "b"
    )
    assert report.xattrs == 2


def test_lu_14_a_value_larger_than_any_file_system_takes_is_an_error(tmp_path: Path) -> None:
    extra = pax({b"SCHILY.xattr.user.big": bytes(70 << 10)})
    with pytest.raises(OciError, match=r"'x' can't have its attribute 'user\.big': "):
        unpacked(tmp_path / "bundle", archive(extra + file(b"x")))
    assert not (tmp_path / "bundle").exists()


def test_lu_14_ten_thousand_attributes_end_in_time(tmp_path: Path) -> None:
    extra = pax({b"SCHILY.xattr.user.%d" % n: b"" for n in range(10_000)})
    try:
        unpacked(tmp_path / "bundle", archive(extra + file(b"x")))
    except OciError as error:
        assert "'x' can't have its attribute 'user." in error.message  # noqa: PT017 - either is right


def test_a_directory_entry_replaces_all_attributes_of_the_lower_layer(tmp_path: Path) -> None:
    lower = pax({b"SCHILY.xattr.user.old": b"1"}) + directory(b"d/", mode=0o700, mtime=1)
    upper = pax({b"SCHILY.xattr.user.new": b"2"}) + directory(b"d/", mode=0o711, mtime=2)
    rootfs = unpacked(tmp_path / "bundle", archive(lower, file(b"d/x")), archive(upper))
    node = tree(rootfs)["d"]
    assert (node.mode, node.mtime, node.xattrs) == (0o711, 2_000_000_000, (("user.new", b"2"),))


def test_lu_20_holes_take_no_space(tmp_path: Path) -> None:
    records = {b"GNU.sparse.size": b"%d" % (1 << 40), b"GNU.sparse.map": b"0,3,%d,3" % ((1 << 40) - 3)}
    rootfs = unpacked(tmp_path / "bundle", archive(pax(records) + file(b"x", b"abcdef"), file(b"y")))
    status = (rootfs / "x").stat()
    assert (status.st_size, status.st_blocks * 512 <= 64 << 10) == (1 << 40, True)
    with (rootfs / "x").open("rb") as found:
        assert found.read(4) == b"abc\0"
        found.seek(-4, os.SEEK_END)
        assert found.read() == b"\0def"


def test_lu_20_a_file_that_is_one_hole(tmp_path: Path) -> None:
    records = {b"GNU.sparse.size": b"4096", b"GNU.sparse.map": b""}
    rootfs = unpacked(tmp_path / "bundle", archive(pax(records) + file(b"x")))
    assert (rootfs / "x").read_bytes() == bytes(4096)


def test_lu_20_a_large_body_with_holes_is_put_together(tmp_path: Path) -> None:
    pieces = [bytes([n]) * 700_001 for n in range(1, 6)]
    extents = b",".join(b"%d,700001" % (n * 1_000_000) for n in range(5))
    records = {b"GNU.sparse.size": b"5000000", b"GNU.sparse.map": extents}
    rootfs = unpacked(tmp_path / "bundle", archive(pax(records) + file(b"x", b"".join(pieces))))
    assert (rootfs / "x").read_bytes() == b"".join(piece.ljust(1_000_000, b"\0") for piece in pieces)


def test_times_are_those_of_the_layer_to_the_nanosecond(tmp_path: Path) -> None:
    extra = pax({b"mtime": b"1234567890.123456789"})
    tar = archive(
        extra + directory(b"d/"),
        extra + file(b"d/x", b"x"),
        extra + symlink(b"d/l", b"x"),
        extra + fifo(b"d/p"),
    )
    late = archive(file(b"d/later"))
    found = tree(unpacked(tmp_path / "bundle", tar, late))
    assert {found[name].mtime for name in ("d", "d/x", "d/l", "d/p")} == {1234567890123456789}


@pytest.mark.parametrize("mtime", [-(1 << 63), -1, 0, 1 << 63])
def test_lu_22_any_time_can_be_unpacked(tmp_path: Path, mtime: int) -> None:
    rootfs = unpacked(
        tmp_path / "bundle", archive(header(b"x", mtime=mtime), symlink(b"l", b"x", mtime=mtime))
    )
    assert (rootfs / "x").exists()


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"line\nbreak", b" ", b"-rf *", b"e\xcc\x81", b"\xc3\xa9", b"A", b"a"]
)
def test_lu_23_names_come_out_byte_by_byte(tmp_path: Path, name: bytes) -> None:
    tar = archive(
        file(name, b"1"), directory(b"d/" + name + b"/"), hardlink(b"twin", name), file(b"d/" + name + b"/x")
    )
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert tree(rootfs).keys() == {
        ".",
        "d",
        "twin",
        os.fsdecode(name),
        "d/" + os.fsdecode(name),
        "d/" + os.fsdecode(name) + "/x",
    }


def test_lu_23_names_that_differ_only_in_case_or_normal_form_are_different(tmp_path: Path) -> None:
    names = [b"readme", b"README", b"e\xcc\x81", b"\xc3\xa9"]
    rootfs = unpacked(tmp_path / "bundle", archive(*(file(name, name) for name in names)))
    assert {(rootfs / os.fsdecode(name)).read_bytes() for name in names} == set(names)


def test_lu_23_the_deepest_allowed_tree_is_made_and_removed(tmp_path: Path) -> None:
    deep = b"d/" * 2000
    rootfs = unpacked(tmp_path / "bundle", archive(file(deep + b"x")), archive(file(b".wh.d"), file(b"y")))
    assert [path.name for path in rootfs.iterdir()] == ["y"]


@pytest.mark.parametrize("umask", [0, 0o022])
def test_lu_28_only_the_owner_can_enter_a_bundle(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        unpacked(tmp_path / "bundle", archive(directory(b"./", mode=0o777), file(b"su", b"x", mode=0o4755)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == 0o700


@root
@pytest.mark.root
def test_lu_28_nothing_is_inherited_from_the_directory_above(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 50)
    tmp_path.chmod(0o2775)
    default = bytes.fromhex(
        "02000000 01000700ffffffff 0200070005000000 04000700ffffffff 10000700ffffffff 20000700ffffffff"
    )
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", default)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
    found = tree(
        unpacked(tmp_path / "bundle", archive(file(b"x", mode=0o640), directory(b"d/"), file(b"e/f")))
    )
    assert {(node.gid, node.xattrs) for node in found.values()} == {(0, ())}
    assert (found["x"].mode, found["d"].mode, found["e"].mode, found["."].mode) == (
        0o640,
        0o755,
        0o755,
        0o755,
    )


def test_directories_that_no_entry_describes_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (tree(unpacked(tmp_path / name, archive(file(b"a/b/x")))) for name in "12")
    assert first == second
    assert (first["a"].mode, first["a"].mtime, first["."].mtime) == (0o755, 0, 0)


def test_a_hole_free_file_of_many_chunks_is_whole(tmp_path: Path) -> None:
    body = os.urandom(3_500_000)
    tar = archive(file(b"x", body)) + bytes(10_240)
    assert (unpacked(tmp_path / "bundle", tar) / "x").read_bytes() == body
    assert padded(b"x") == b"x" + bytes(511)
