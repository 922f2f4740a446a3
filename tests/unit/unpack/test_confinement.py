"""LU-01 to LU-06, LU-25: whatever a layer says, only its own root changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.unpack_images import unpacked
from support.unpack_tars import archive, device, directory, fifo, file, hardlink, pax, symlink

from ocitool.errors import InvalidContent, OciError, UnsafeContent

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("resolver")


@pytest.mark.parametrize(
    "name", [b"../x", b"/x", b"a/../../x", b"./x", b"//x", b"../../../../x", b"a/b/../../x", b"./.././x"]
)
def test_lu_01_a_name_that_climbs_stays_in_the_root(tmp_path: Path, canary: Path, name: bytes) -> None:
    rootfs = unpacked(tmp_path / "bundle", archive(file(name, b"new")))
    assert (rootfs / "x").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "canary"]


def test_lu_01_a_sibling_whose_name_starts_alike_is_not_inside(tmp_path: Path, canary: Path) -> None:
    evil = tmp_path / "rootfs-evil"
    evil.mkdir()
    rootfs = unpacked(tmp_path / "bundle", archive(file(b"../rootfs-evil/x", b"new")))
    assert list(evil.iterdir()) == []
    assert (rootfs / "rootfs-evil" / "x").is_file()


def test_lu_01_an_absolute_path_to_the_canary_lands_inside(tmp_path: Path, canary: Path) -> None:
    rootfs = unpacked(tmp_path / "bundle", archive(file(bytes(canary / "song"), b"croak")))
    assert rootfs.joinpath(*canary.parts[1:], "song").read_bytes() == b"croak"


@pytest.mark.parametrize("name", [b"d//", b"./d//", b"d/./", b"d///", b"x/../d//", b"d/.//"])
def test_lu_04_slashes_at_the_end_do_not_make_a_directory_the_root(tmp_path: Path, name: bytes) -> None:
    rootfs = unpacked(tmp_path / "bundle", archive(directory(b"./", mode=0o711), directory(name, mode=0o750)))
    assert [path.stat().st_mode & 0o7777 for path in (rootfs, rootfs / "d")] == [0o711, 0o750]


def through(link: bytes) -> dict[str, bytes]:
    """Everything that an entry can do through a link on its way."""
    return {
        "write": file(link + b"/song", b"croak"),
        "create": file(link + b"/new", b"croak"),
        "make a directory": directory(link + b"/new/"),
        "make a link": symlink(link + b"/song", b"elsewhere"),
        "make a FIFO": fifo(link + b"/song"),
        "hard link over": file(b"mine") + hardlink(link + b"/song", b"mine"),
        "hard link from": hardlink(b"stolen", link + b"/song"),
        "whiteout": file(link + b"/.wh.song"),
        "opaque": file(link + b"/.wh..wh..opq"),
        "describe": directory(link + b"/", mode=0o700, uid=7, mtime=5),
        "set an attribute": pax({b"SCHILY.xattr.user.evil": b"1"}) + file(link + b"/song"),
    }


@pytest.mark.parametrize("act", sorted(through(b"x")))
@pytest.mark.parametrize("layers", [1, 2], ids=["same layer", "next layer"])
@pytest.mark.parametrize("climb", ["absolute", "climbing"])
def test_lu_02_an_entry_through_a_link_stays_inside(
    tmp_path: Path, canary: Path, act: str, layers: int, climb: str
) -> None:
    target = b"../" * 40 + bytes(canary)[1:] if climb == "climbing" else bytes(canary)
    first, second = symlink(b"escape", target), through(b"escape")[act]
    tars = [archive(first + second)] if layers == 1 else [archive(first), archive(second)]
    try:
        rootfs = unpacked(tmp_path / "bundle", *tars)
    except OciError:
        assert act == "hard link from"
        assert not (tmp_path / "bundle").exists()
        return
    inside = rootfs.joinpath(*canary.parts[1:])
    if act in {"write", "create"}:
        assert (inside / ("song" if act == "write" else "new")).read_bytes() == b"croak"
    if act == "describe":
        # layer.md: an entry replaces what is not a directory, a link to one included.
        assert (rootfs / "escape").is_dir()
        assert not (rootfs / "escape").is_symlink()


def test_lu_02_links_upon_links_stay_inside(tmp_path: Path, canary: Path) -> None:
    tar = archive(
        symlink(b"a", b"/"),
        symlink(b"a/b", b"../.."),
        symlink(b"c", b"a/b/../.." + bytes(canary)),
        file(b"c/song", b"croak"),
    )
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert rootfs.joinpath(*canary.parts[1:], "song").read_bytes() == b"croak"


def test_lu_03_a_loop_of_links_is_refused(tmp_path: Path, canary: Path) -> None:
    with pytest.raises(UnsafeContent, match="too many symbolic links"):
        unpacked(tmp_path / "bundle", archive(symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")))


@pytest.mark.parametrize(("links", "allowed"), [(38, "allowed"), (60, "")])
def test_lu_03_a_chain_of_links_has_the_length_that_the_kernel_allows(
    tmp_path: Path, canary: Path, links: int, allowed: str
) -> None:
    chain = [symlink(b"l%d" % n, b"l%d" % (n + 1)) for n in range(links)]
    tar = archive(*chain, directory(b"l%d" % links), file(b"l0/x", b"here"))
    if allowed:
        assert (unpacked(tmp_path / "bundle", tar) / f"l{links}" / "x").read_bytes() == b"here"
    else:
        with pytest.raises(UnsafeContent):
            unpacked(tmp_path / "bundle", tar)


def test_lu_03_a_chain_whose_names_exceed_the_path_limit_is_refused_in_time(
    tmp_path: Path, canary: Path
) -> None:
    deep = b"/".join([b"d" * 200] * 18)
    tar = archive(directory(deep + b"/"), symlink(b"l", deep), file(b"l/" + deep + b"/x"))
    with pytest.raises(UnsafeContent):
        unpacked(tmp_path / "bundle", tar)


def test_lu_03_many_steps_up_and_down_end_in_an_error(tmp_path: Path, canary: Path) -> None:
    link = symlink(b"l", b"d/../" * 800 + b"l2") + symlink(b"l2", b"d/../" * 800 + b"l")
    with pytest.raises(UnsafeContent):
        unpacked(tmp_path / "bundle", archive(directory(b"d/"), link, file(b"l/x")))


@pytest.mark.parametrize("name", [b".", b"./", b"/.", b"", b"..", b"/", b"a/..", b"../.."])
@pytest.mark.parametrize(
    "entry",
    [
        lambda name: file(name, b"x"),
        lambda name: symlink(name, b"/etc"),
        lambda name: hardlink(name, b"other"),
        fifo,
        lambda name: device(name, 1, 3),
    ],
    ids=["file", "symlink", "hardlink", "fifo", "device"],
)
def test_lu_04_nothing_replaces_the_root(tmp_path: Path, canary: Path, name: bytes, entry: object) -> None:
    assert callable(entry)
    with pytest.raises(InvalidContent):
        unpacked(tmp_path / "bundle", archive(file(b"other"), entry(name)))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", [b"./", b"/", b".", b"/./", b"a/../"])
def test_lu_04_a_directory_entry_describes_the_root(tmp_path: Path, canary: Path, name: bytes) -> None:
    rootfs = unpacked(tmp_path / "bundle", archive(directory(name, mode=0o711, mtime=99), file(b"x")))
    assert rootfs.stat().st_mode & 0o7777 == 0o711
    assert rootfs.stat().st_mtime == 99


@pytest.mark.parametrize("name", [b".wh..", b"./.wh..", b".wh...", b".wh."])
def test_lu_04_a_whiteout_of_the_root_is_refused(tmp_path: Path, canary: Path, name: bytes) -> None:
    with pytest.raises(InvalidContent):
        unpacked(tmp_path / "bundle", archive(file(b"x")), archive(file(name)))


@pytest.mark.parametrize(
    "target", [b"%(canary)s/song", b"../../../../../../../../%(canary)s/song", b"link/song", b"up/song"]
)
def test_lu_05_a_hard_link_outside_is_none(tmp_path: Path, canary: Path, target: bytes) -> None:
    tar = archive(
        symlink(b"link", bytes(canary)),
        symlink(b"up", b"../" * 30 + bytes(canary)[1:]),
        hardlink(b"stolen", target % {b"canary": bytes(canary)}),
    )
    with pytest.raises(InvalidContent, match="not there"):
        unpacked(tmp_path / "bundle", tar)


def test_lu_05_a_hard_link_to_a_symbolic_link_is_the_link(tmp_path: Path, canary: Path) -> None:
    song = bytes(canary / "song")
    tar = archive(symlink(b"a", song), hardlink(b"b", b"a", mode=0o777, uid=9, mtime=7), file(b"b", b"x"))
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert (rootfs / "a").readlink() == canary / "song"
    assert (rootfs / "b").read_bytes() == b"x"


def test_lu_05_a_mode_is_never_given_through_a_link(tmp_path: Path, canary: Path) -> None:
    tar = archive(symlink(b"a", bytes(canary / "song")), hardlink(b"b", b"a", mode=0o777, uid=9, mtime=7))
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert (rootfs / "b").lstat().st_ino == (rootfs / "a").lstat().st_ino


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (hardlink(b"a", b"a"), "itself, which is not there"),
        (directory(b"d/") + hardlink(b"a", b"d"), "a directory"),
        (hardlink(b"a", b"later") + file(b"later"), "a later entry"),
        (hardlink(b"a", b"pyproject.toml"), "a name where the process runs"),
        (hardlink(b"a", b"/"), "the root"),
        (directory(b"d/") + file(b"d/x") + hardlink(b"d", b"d/x"), "what it replaces"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lu_05_a_hard_link_to_nothing_is_refused(
    tmp_path: Path, canary: Path, entries: bytes, why: str
) -> None:
    with pytest.raises(InvalidContent):
        unpacked(tmp_path / "bundle", archive(entries))


def test_lu_05_a_hard_link_to_a_lower_layer_shares_its_inode(tmp_path: Path, canary: Path) -> None:
    rootfs = unpacked(
        tmp_path / "bundle",
        archive(directory(b"usr/"), symlink(b"lib", b"usr"), file(b"usr/x", b"lower")),
        archive(hardlink(b"y", b"/lib/x"), hardlink(b"y", b"y")),
    )
    assert (rootfs / "y").stat().st_ino == (rootfs / "usr" / "x").stat().st_ino


def test_lu_06_links_are_made_without_following_on_every_python(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = os.link

    def link(*args: object, **keywords: object) -> None:
        asked.append(keywords.get("follow_symlinks"))
        real(*args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    unpacked(tmp_path / "bundle", archive(symlink(b"a", bytes(canary / "song")), hardlink(b"b", b"a")))
    assert asked == [False]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
@pytest.mark.root
def test_lu_06_a_node_that_is_replaced_by_a_link_gives_its_mode_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    os.mkfifo(victim, 0o600)
    real = os.chown

    def chown(name: bytes, *args: int, dir_fd: int, follow_symlinks: bool) -> None:
        real(name, *args, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        os.unlink(name, dir_fd=dir_fd)
        os.symlink(victim, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(UnsafeContent, match="was replaced while it was being unpacked"):
        unpacked(tmp_path / "bundle", archive(fifo(b"pipe", uid=7, mode=0o666)))
    assert victim.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", [b"self/root", b"self/cwd", b"self/fd/0", b"1/root", b"thread-self/root"])
def test_lu_25_magic_links_are_not_followed(tmp_path: Path, canary: Path, path: bytes) -> None:
    where = path + bytes(canary)
    tar = archive(symlink(b"p", b"/proc"), file(b"p/" + where + b"/song", b"croak"))
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert rootfs.joinpath("proc", os.fsdecode(where), "song").read_bytes() == b"croak"


def test_lu_25_a_link_that_leads_to_itself_is_refused(tmp_path: Path, canary: Path) -> None:
    tar = archive(symlink(b"proc", b"/proc"), file(b"proc/self/root" + bytes(canary) + b"/song"))
    with pytest.raises(UnsafeContent):
        unpacked(tmp_path / "bundle", tar)
