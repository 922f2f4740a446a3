"""Layers that fuse-overlayfs mounts where the kernel's own overlay does not take the file system."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ordinary
from support.command import Ocitool
from support.ordinary import DELEGATE, NOBODY
from support.peers import require, require_root
from support.run_bundles import (
    ORDINARY,
    OURS,
    PYTHON,
    Bundle,
    Containers,
    host_traces,
    make_rootfs,
    programs_of,
)
from support.unpack_images import image
from support.unpack_tars import archive, directory, file
from support.waiting import until

from ocitool.errors import RunError
from ocitool.run import Overlay, launch, run_bundle
from ocitool.run.runtime import Runtime

pytestmark = [pytest.mark.root, pytest.mark.peers]

PROGRAM = "/usr/bin/fuse-overlayfs"
USERS = ["root", "ordinary", "delegated"]
TRACER = ["/usr/bin/strace", "-D", "-qq", "-o", "/dev/null"]
SERVED = "fuse-overlayfs mounts the layers"
# The machine may keep the device for root; in this view of the mounts it is everybody's.
OPEN_FUSE = """
test -e "$1/fuse" || mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
"""
ROOT_MOUNT = (
    "while read -r line; do case $line in *' / / '*) echo ${line#* - };; esac; done </proc/self/mountinfo"
)


def _mount_overlay(place: Path) -> Path:
    """A directory on an overlay, in which the kernel keeps no changes of another one."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    for name in ("lower", "upper", "work", "home"):
        (place / name).mkdir()
    options = ",".join(f"{name}dir={place}/{name}" for name in ("lower", "upper", "work"))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place / "home"], check=True)
    return place / "home"


@pytest.fixture
def home() -> Iterator[Path]:
    require_root()
    require("fuse-overlayfs")
    if not Path("/dev/fuse").exists():
        pytest.skip("this kernel has no /dev/fuse")
    outside = Path(tempfile.mkdtemp(prefix="ocitool-fuse-"))
    outside.chmod(0o755)
    place = outside / "mounted"
    place.mkdir()
    found = _mount_overlay(place)
    os.chown(found, NOBODY, NOBODY)
    yield found
    assert programs_of(found, "fuse-overlayfs") == []
    for mounted in (found, place):
        subprocess.run(["umount", mounted], check=True)
    shutil.rmtree(outside)


@pytest.fixture
def layered(home: Path) -> str:
    """An image of two layers; the upper one removes a file, hides what a directory had, and adds to it."""
    outside = home.parents[1]
    make_rootfs(outside / "base")
    with io.BytesIO() as written:
        with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(outside / "base", ".")
        base = written.getvalue().rstrip(b"\0")
    base += bytes(-len(base) % 512)
    entries = (directory(b"data"), file(b"data/kept", b"kept\n", uid=1234), file(b"data/gone"))
    old = (directory(b"opaque"), file(b"opaque/old"))
    top = (directory(b"data"), file(b"data/.wh.gone"), directory(b"opaque"), file(b"opaque/.wh..wh..opq"))
    closed = (directory(b"closed", mode=0o700), file(b"closed/x", b"closed\n"))
    made = image(base + archive(*entries, *old, *closed), archive(*top, file(b"opaque/new")))
    return made.to_layout(outside / "layered")


def _command(home: Path, *words: str, user: str = "root") -> list[str]:
    program = [sys.executable, "-m", "ocitool", "run", *words]
    if user != "root":
        program = ordinary.command(*program)
    script = OPEN_FUSE + (DELEGATE if user == "delegated" else "") + 'shift; exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", str(home), *program]


def _run(home: Path, *words: str, user: str = "root", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        _command(home, *words, user=user), env={**Ocitool(home).environment, **env}, cwd=home, text=True,
        check=False, timeout=120, capture_output=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert list(home.glob("containers/*")) == []
    assert programs_of(home, "fuse-overlayfs") == []
    return done


@pytest.mark.parametrize("user", USERS)
def test_layers_are_mounted_and_not_copied_where_the_kernel_mounts_none(
    home: Path, layered: str, user: str
) -> None:
    script = f"""{ROOT_MOUNT}
cd / && ls data opaque && rm data/kept && rm -r opaque && mkdir opaque && ls data opaque
echo x >new && cat new
set -- /proc/[0-9]*; echo $#; ls /proc/self/fd | wc -l; exit 7"""
    shown = [
        "fuse fuse-overlayfs rw,user_id=0,group_id=0,default_permissions,allow_other",
        *("data:", "kept", "", "opaque:", "new"),
        *("data:", "", "opaque:"),
        "x",
        "1",  # the shell
        "4",  # three streams, and the directory that is being read
    ]
    for _ in ("unpacked now", "unpacked before"):
        done = _run(home, layered, "--", "sh", "-c", script, user=user)
        assert (done.returncode, done.stdout.splitlines()) == (7, shown), done.stderr
        assert done.stderr.endswith(f"; {SERVED}\n")
        # The first line of what ran an image for the first time may be about that.
        assert "unpacked for this container alone" not in done.stderr


def test_a_bundle_of_layers_is_run_like_an_image(home: Path, layered: str) -> None:
    words = ("unpack", "--layer-cache", "cache", layered, "bundle")
    Ocitool(home)(*words)
    done = _run(home, "./bundle", "--", "cat", "/data/kept")
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
    assert SERVED in done.stderr


@pytest.mark.parametrize(("user", "owner"), [("root", 1234), ("ordinary", 0), ("delegated", 1234)])
def test_files_have_the_owners_that_the_user_may_give(
    home: Path, layered: str, user: str, owner: int
) -> None:
    give = "chown 1 /new && stat -c %u /new" if owner else "chown 1 /new 2>/dev/null || echo 1"
    done = _run(
        home, layered, "--", "sh", "-c", f"stat -c %u /data/kept; touch /new; {give}; id -u", user=user
    )
    assert done.stdout.split() == [str(owner), "1", "0"], done.stderr


def test_what_is_closed_to_a_user_inside_is_closed_although_root_serves_it(home: Path, layered: str) -> None:
    script = "cat /closed/x || touch /data/new || echo refused"
    done = _run(home, "--user", "1:1", layered, "--", "sh", "-c", f"({script}) 2>/dev/null")
    assert done.stdout == "refused\n", done.stderr
    assert _run(home, layered, "--", "sh", "-c", "cat /closed/x").stdout == "closed\n"


def test_a_read_only_root_is_read_only(home: Path, layered: str) -> None:
    done = _run(home, "--read-only", layered, "--", "sh", "-c", "echo x 2>/dev/null >/new || echo refused")
    assert done.stdout == "refused\n", done.stderr


def test_what_serves_the_layers_has_nothing_else_and_is_in_no_namespace_of_the_container(
    home: Path, layered: str
) -> None:
    inherited, writing = os.pipe()
    with _started(
        home, "-i", layered, "--", "sh", "-c", "echo ready; read -r line", pass_fds=[writing]
    ) as run:
        (pid,) = programs_of(home, "fuse-overlayfs")
        held = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        spaces = [_namespaces(pid), _namespaces(run.pid)]
        session = os.getsid(pid)
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        run.communicate("\n", timeout=60)
    ours = f"pipe:[{os.fstat(writing).st_ino}]"
    os.close(inherited)
    os.close(writing)
    assert run.returncode == 0
    # Its log, the layers, and what is read of them; pipes of its own, to splice with.
    named = {Path(path).name for path in held if not path.startswith("pipe:")}
    assert named - {"busybox"} == {"null", "fuse", "layers", "diff", "upper", "work"}
    assert ours not in held
    assert spaces[0] == spaces[1]
    assert session == pid
    assert "NoNewPrivs:\t1" in status


def _namespaces(pid: int) -> list[Path]:
    return [link.readlink() for link in Path(f"/proc/{pid}/ns").iterdir()]


def _started(home: Path, *words: str, user: str = "root", **options: Any) -> subprocess.Popen[str]:
    """A run whose program has said that it is ready."""
    run = subprocess.Popen(
        _command(home, *words, user=user), env=Ocitool(home).environment, cwd=home, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    return run


def test_a_run_that_is_killed_leaves_a_container_that_works_and_takes_the_mount_with_it(
    home: Path, layered: str
) -> None:
    assert _run(home, layered, "true").returncode == 0  # from here on the command is the runtime
    name = f"{OURS}-killed"
    words = ("--name", name, layered, "--", "sh", "-c", "echo ready; sleep 60")
    with _started(home, *words) as run:
        run.kill()
    assert len(programs_of(home, "fuse-overlayfs")) == 1
    pid = Runtime().state(name)["pid"]
    assert Path(f"/proc/{pid}/root/data/kept").read_text() == "kept\n"
    os.kill(pid, signal.SIGKILL)
    # Nobody ends it.
    until(lambda: programs_of(home, "fuse-overlayfs") == [])
    assert _run(home, layered, "true").returncode == 0  # which takes away what is left
    assert not Path(f"/run/ocitool/{name}").exists()


def test_delete_ends_what_serves_a_container_whose_run_was_killed(home: Path, layered: str) -> None:
    assert _run(home, layered, "true").returncode == 0
    name = f"{OURS}-deleted"
    with _started(home, "--name", name, layered, "--", "sh", "-c", "echo ready; sleep 60") as run:
        run.kill()
    (pid,) = programs_of(home, "fuse-overlayfs")
    assert Runtime().state(name)["status"] == "running"
    os.kill(pid, signal.SIGSTOP)  # so that it does not end by itself
    Runtime().delete(name, force=True)
    assert programs_of(home, "fuse-overlayfs") == []


def test_a_run_ends_where_what_serves_its_layers_is_killed(home: Path, layered: str) -> None:
    with _started(
        home, layered, "--", "sh", "-c", "echo ready; while ls data >/dev/null; do :; done; exit 5"
    ) as run:
        (pid,) = programs_of(home, "fuse-overlayfs")
        os.kill(pid, signal.SIGKILL)
        assert run.wait(60) == 5
    assert list(home.glob("containers/*")) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no luck >&2; exit 1", ": no luck"),
        ("exit 0", "rootfs: Transport endpoint is not connected"),
        ("kill -9 $$", "rootfs: Transport endpoint is not connected"),
    ],
)
def test_where_fuse_overlayfs_fails_the_image_is_unpacked_for_the_container(
    home: Path, layered: str, script: str, said: str
) -> None:
    failing = home / "bin" / "fuse-overlayfs"
    failing.parent.mkdir()
    failing.write_text(f"#!/bin/sh\n{script}\n")
    failing.chmod(0o755)
    done = _run(home, layered, "--", "cat", "/data/kept", PATH=f"{failing.parent}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
    told = [line for line in done.stderr.splitlines() if "fuse-overlayfs on" in line]
    assert [line.endswith("; the image is unpacked for this container alone") for line in told] == [True]
    assert said in told[0]


@pytest.mark.parametrize("lacking", ["program", "device"])
def test_where_a_host_has_no_fuse_the_image_is_unpacked_for_the_container(
    home: Path, layered: str, lacking: str
) -> None:
    if lacking == "device":
        run = _command(home, layered, "--", "cat", "/data/kept", user="ordinary")
        run[5] = OPEN_FUSE.replace("666", "600") + 'shift; exec "$@"'
    else:
        run = _command(home, layered, "--", "cat", "/data/kept")
        run[5] = 'shift; PATH=/nonexistent; exec "$@"'
    done = subprocess.run(
        run, env=Ocitool(home).environment, cwd=home, text=True, check=False, timeout=120, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
    assert SERVED not in done.stderr
    assert "unpacked for this container alone" in done.stderr


def test_a_program_at_a_relative_path_is_nobodys_choice(home: Path, layered: str) -> None:
    (home / "tools").mkdir()
    (home / "tools" / "fuse-overlayfs").write_text("#!/bin/sh\necho taken >&2; exit 1\n")
    (home / "tools" / "fuse-overlayfs").chmod(0o755)
    done = _run(home, layered, "--", "cat", "/data/kept", PATH=f"tools:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
    assert done.stderr.endswith(f"; {SERVED}\n")


def test_the_mount_does_not_reach_a_host_that_shares_its_mounts(home: Path, layered: str) -> None:
    script = OPEN_FUSE + 'shift; "$@"; grep -c fuse-overlayfs /proc/self/mountinfo'
    command = _command(home, "-i", layered, "--", "sh", "-c", "echo ready; read -r line")
    command[2:3], command[4] = ["--propagation=shared"], "-c"
    with subprocess.Popen(
        [*command[:5], script, *command[6:]], env=Ocitool(home).environment, cwd=home, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        seen = Path(f"/proc/{run.pid}/mountinfo").read_text()
        run.communicate("\n", timeout=60)
    assert "/dev/fuse" in seen  # ours, which is there to be seen
    assert " fuse-overlayfs " not in seen


def test_another_runtime_gets_a_copy(home: Path, layered: str) -> None:
    require("runc")
    done = _run(home, "--runtime", "runc", layered, "--", "cat", "/data/kept")
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
    assert SERVED not in done.stderr


def test_a_colon_in_the_path_of_the_changes_is_one_for_a_copy(home: Path, layered: str) -> None:
    """fuse-overlayfs would take the path apart there, and keep changes elsewhere."""
    inner = home / "a:b"
    inner.mkdir()
    done = subprocess.run(
        _command(home, layered, "--", "cat", "/data/kept"), env=Ocitool(inner).environment, cwd=home,
        text=True, check=False, timeout=120, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
    assert "for the colon in that; the image is unpacked for this container alone" in done.stderr


def _served(bundle: Bundle, base: Path, *layers: Path, program: str = PROGRAM) -> Overlay:
    """A bundle's root file system as the lowest of some layers."""
    bundle.rootfs.rename(base / "base")
    for path in (bundle.rootfs, base / "upper", base / "work"):
        path.mkdir()
    lower = [*map(str, layers), str(base / "base")]
    return Overlay(
        str(bundle.rootfs), lower, upper=str(base / "upper"), work=str(base / "work"), program=program
    )


def test_many_layers_at_long_and_odd_paths_are_served(
    bundle: Bundle, containers: Containers, workplace: Path
) -> None:
    require("fuse-overlayfs")
    deep = workplace / ("d" * 200) / ("e" * 200)
    layers = [deep / f"{number},:\\" for number in range(100)]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"f{number}").touch()
    overlay = _served(bundle, deep, *layers)
    bundle.shell("set -- /f*; echo changed > /new; exit $#")
    assert run_bundle(str(bundle.path), root=str(containers.root), overlay=overlay) == 100
    assert (deep / "upper" / "new").read_text() == "changed\n"


def test_layers_alone_are_served_read_only(bundle: Bundle, containers: Containers, workplace: Path) -> None:
    require("fuse-overlayfs")
    base = bundle.rootfs.rename(workplace / "base")
    for name in ("proc", "sys", "dev"):
        assert (base / name).is_dir()
    bundle.rootfs.mkdir()
    bundle.shell("echo x 2>/dev/null >/new || exit 3")
    overlay = Overlay(str(bundle.rootfs), [str(base)], readonly=True, program=PROGRAM)
    assert run_bundle(str(bundle.path), root=str(containers.root), overlay=overlay) == 3
    assert not (base / "new").exists()


def test_changes_in_memory_are_refused(bundle: Bundle, containers: Containers, workplace: Path) -> None:
    base = bundle.rootfs.rename(workplace / "base")
    bundle.rootfs.mkdir()
    overlay = Overlay(str(bundle.rootfs), [str(base)], program=PROGRAM)
    with pytest.raises(RunError, match="keeps no changes in memory"):
        run_bundle(str(bundle.path), root=str(containers.root), overlay=overlay)
    assert containers.remembered() == []


# While the helper that mounts is cloned, while it is waited for, and when what serves is written down.
STEPS = [("clone", 1), ("pipe2", 3), ("wait4", 1), ("rename", 5)]


@pytest.mark.parametrize(("call", "number"), STEPS)
def test_rn_20_a_runtime_that_is_killed_while_layers_are_mounted_leaves_nothing(
    containers: Containers, bundle: Bundle, workplace: Path, monkeypatch: pytest.MonkeyPatch,
    call: str, number: int,
) -> None:  # fmt: skip
    require("strace", "fuse-overlayfs")
    monkeypatch.setenv("HOME", str(workplace))  # by which its programs are known
    clean = launch.interpreter()
    tracer = [*TRACER, "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    monkeypatch.setattr(launch, "interpreter", lambda: [*tracer, *clean])
    overlay = _served(bundle.shell("sleep 60"), workplace)
    with pytest.raises(RunError, match="the runtime was ended by signal 9"):
        run_bundle(str(bundle.path), root=str(containers.root), overlay=overlay)
    assert containers.remembered() == []
    until(lambda: programs_of(workplace, "fuse-overlayfs") == [])
    assert host_traces(containers.base) == []


def test_rn_20_a_runtime_that_is_killed_by_what_it_started_leaves_nothing(
    containers: Containers, bundle: Bundle, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("fuse-overlayfs")
    monkeypatch.setenv("HOME", str(workplace))
    wrapper = workplace / "fuse-overlayfs"
    wrapper.write_text(f'#!/bin/sh\nkill -9 $PPID\nexec {PROGRAM} "$@"\n')
    wrapper.chmod(0o755)
    overlay = _served(bundle.shell("sleep 60"), workplace, program=str(wrapper))
    with pytest.raises(RunError, match="the runtime was ended by signal 9"):
        run_bundle(str(bundle.path), root=str(containers.root), overlay=overlay)
    assert containers.remembered() == []
    until(lambda: programs_of(workplace, "fuse-overlayfs") == [])
    assert host_traces(containers.base) == []


@pytest.mark.parametrize("userns", [False, True])
def test_rn_20_what_mounts_layers_dies_with_its_runtime(
    containers: Containers, bundle: Bundle, workplace: Path, *, userns: bool
) -> None:
    """It would wait for a program that never answers."""
    silent = workplace / "fuse-overlayfs"
    silent.write_text("#!/bin/sh\nexec sleep 30\n")
    silent.chmod(0o755)
    if userns:
        bundle.map_single_user(ORDINARY)
    overlay = _served(bundle.shell("sleep 60"), workplace, program=str(silent))
    words = ("run", "--overlay", json.dumps(overlay.document()), "--bundle", str(bundle.path))
    script = OPEN_FUSE + 'shift; exec "$@"'
    command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", str(workplace)]
    command += containers.command(*words, f"{OURS}-silent")
    with subprocess.Popen(
        command, env={**os.environ, "HOME": str(workplace)}, stdin=subprocess.DEVNULL
    ) as runtime:
        (pid,) = until(lambda: programs_of(workplace, "sleep"))
        runtime.kill()
    until(lambda: programs_of(workplace, Path(PYTHON).name) == [])
    assert programs_of(workplace, "sleep") == [pid]  # nothing had come from there by then
    os.kill(pid, signal.SIGKILL)
    until(lambda: programs_of(workplace, "sleep") == [])
