"""Order and arguments of mount calls, recorded by a kernel that does nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.run_kernel import RecordingKernel

from ocitool.errors import InvalidContent, RunError, Unsupported
from ocitool.run import Overlay, mounts, namespaces, rootfs
from ocitool.run.kernel import Linux

PRIVATE_OR_SLAVE, RECURSIVE = (0x40000, 0x80000), 0x4000


@pytest.fixture
def kernel() -> RecordingKernel:
    return RecordingKernel()


@pytest.fixture
def around(kernel: RecordingKernel, tmp_path: Path) -> Iterator[mounts.Surroundings]:
    """A root in a temporary directory, whose descriptor is real."""
    root = os.open(tmp_path, os.O_PATH)
    yield mounts.Surroundings(kernel, root, "/bundle")
    os.close(root)


def _attributes(kernel: RecordingKernel) -> list[tuple[Any, ...]]:
    return [arguments for name, arguments in kernel.calls if name == "mount_setattr"]


def test_a_bind_gets_its_attributes_before_it_is_seen_and_its_propagation_after(
    kernel: RecordingKernel, around: mounts.Surroundings, tmp_path: Path
) -> None:
    # The pretended source is a device file, so the destination is made as a file.
    entry = {"destination": "/a/b", "source": "x", "options": ["rbind", "ro", "nosuid", "rnodev", "rslave"]}
    mounts.mount_all(around, [entry])
    assert (tmp_path / "a/b").is_file()
    names = [name for name in kernel.names() if name not in ("openat2", "fstatfs")]
    assert names == ["open_tree", "mount_setattr", "mount_setattr", "move_mount", "mount_setattr"]
    assert kernel.calls[0] == ("open_tree", ("/bundle/x", True))
    assert _attributes(kernel) == [(3, 0, 0, False), (4, 0, 0, True), (0, 0, 0x80000, True)]


def test_locked_flags_stay_where_they_cannot_be_cleared(
    kernel: RecordingKernel, around: mounts.Surroundings
) -> None:
    kernel.refuse["mount_setattr"] = 1
    with pytest.raises(RunError):
        mounts.mount_all(around, [{"destination": "/a", "source": "/x", "options": ["bind", "rw", "noexec"]}])
    assert _attributes(kernel) == [(8, 1, 0, False), (8, 0, 0, False)]


def test_a_file_system_gets_its_own_options_as_data(
    kernel: RecordingKernel, around: mounts.Surroundings, tmp_path: Path
) -> None:
    (tmp_path / "t").mkdir(mode=0o750)
    mounts.mount_all(
        around,
        [
            {"destination": "t", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "size=1m", "noexec"]},
            {"destination": "/d", "type": "ext4", "source": "/dev/x", "options": ["ro", "sync"]},
        ],
    )
    made = [arguments for name, arguments in kernel.calls if name == "new_mount"]
    assert made == [
        ("tmpfs", "tmpfs", ["size=1m", "mode=750"], 9),
        ("ext4", "/dev/x", ["sync", "ro"], 1),
    ]


def test_a_tmpfs_over_nothing_has_the_kernels_own_mode(
    kernel: RecordingKernel, around: mounts.Surroundings
) -> None:
    mounts.mount_all(around, [{"destination": "/made", "type": "tmpfs", "source": "tmpfs"}])
    assert ("new_mount", ("tmpfs", "tmpfs", [], 0)) in kernel.calls


def test_a_kernel_that_takes_layers_in_one_text_gets_them_by_number(
    kernel: RecordingKernel, tmp_path: Path
) -> None:
    names = ("root", "a,b", "c:d", "upper", "work")
    root, first, second, upper, work = (str(tmp_path / name) for name in names)
    for name in names:
        (tmp_path / name).mkdir()
    kernel.refuse["new_mount"] = 22
    Overlay(root, [first, second], upper=upper, work=work, userxattr=True).mount(kernel)
    ((source, target, fstype, flags, text),) = (
        arguments for name, arguments in kernel.calls if name == "mount"
    )
    number = "/proc/self/fd/[0-9]+"
    assert (source, fstype, flags) == (b"overlay", b"overlay", 0)
    assert re.fullmatch(number, target.decode())
    assert re.fullmatch(
        f"lowerdir={number}:{number},upperdir={number},workdir={number},userxattr,volatile", text.decode()
    )


def test_a_kernel_without_a_call_is_told_from_one_that_refuses_it() -> None:
    kernel = Linux()
    kernel._numbers = {**kernel._numbers, "openat2": 99999}
    with pytest.raises(Unsupported, match=r"this kernel has no openat2\(2\)") as caught:
        kernel.openat2(-100, "/", 0, 0)
    assert "5.12" in caught.value.hint
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.call("setns", -1, 0)


def test_a_group_that_is_not_mapped_is_left_out_of_devpts(
    kernel: RecordingKernel, around: mounts.Surroundings
) -> None:
    around.userns = True
    around.gid_mappings = [{"containerID": 0, "hostID": 1000, "size": 1}]
    entry = {"destination": "/p", "type": "devpts", "source": "devpts", "options": ["gid=5", "mode=620"]}
    mounts.mount_all(around, [entry])
    made = next(arguments for name, arguments in kernel.calls if name == "new_mount")
    assert made[2] == ["mode=620"]


def test_a_bind_without_a_source_is_an_error(around: mounts.Surroundings) -> None:
    with pytest.raises(InvalidContent):
        mounts.mount_all(around, [{"destination": "/a", "options": ["bind"]}])


def test_the_old_root_is_cut_off_before_it_is_let_go(
    kernel: RecordingKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocitool.run.rootfs.posix.chdir", lambda _: None)
    monkeypatch.setattr("ocitool.run.rootfs.posix.fchdir", lambda fd: kernel.calls.append(("fchdir", (fd,))))
    rootfs.change_root(kernel, 99)
    (old,) = kernel.calls.pop(2)[1]
    assert old != 99
    assert kernel.calls == [
        ("fchdir", (99,)),
        ("pivot_root", (".", ".")),
        ("propagate", (".", 0x80000 | RECURSIVE)),
        ("umount", (".", 2)),
    ]


@pytest.mark.parametrize("propagation", ["", "private", "slave", "shared", "rshared", "unbindable"])
def test_rn_19_no_propagation_leaves_mounts_shared_with_the_host(
    kernel: RecordingKernel, propagation: str
) -> None:
    rootfs.detach_from_host(kernel, propagation)
    ((name, (path, flags)),) = kernel.calls
    assert (name, path) == ("propagate", "/")
    assert flags & ~RECURSIVE in PRIVATE_OR_SLAVE
    assert flags & RECURSIVE


def test_namespaces_that_only_the_old_rights_open_are_entered_first(kernel: RecordingKernel) -> None:
    network = namespaces.NETWORK
    namespaces.join(kernel, {namespaces.USER: 7, network: 8})
    assert kernel.calls == [("setns", (8, network)), ("setns", (7, namespaces.USER))]


def test_namespaces_that_only_the_new_rights_open_are_entered_after(kernel: RecordingKernel) -> None:
    class Reluctant(RecordingKernel):
        def setns(self, fd: int, flags: int) -> None:
            super().setns(fd, flags)
            if flags == namespaces.NETWORK and len(self.calls) == 1:
                raise PermissionError(1, "not yet")

    reluctant = Reluctant()
    namespaces.join(reluctant, {namespaces.USER: 7, namespaces.NETWORK: 8})
    assert [arguments[0] for _, arguments in reluctant.calls] == [8, 7, 8]


def test_id_maps_have_the_kernels_form() -> None:
    mapping = [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 65535},
    ]
    assert namespaces.id_map(mapping) == "0 1000 1\n1 100000 65535\n"
