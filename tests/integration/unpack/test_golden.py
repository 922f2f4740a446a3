"""Real root file systems come out as umoci and GNU tar make them, and real runtimes take the bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.peers import call, require
from support.unpack_images import memory_directory
from support.unpack_sources import Layout
from support.unpack_trees import differences, tree

from ocitool.unpack import UnpackOptions, UnpackReport, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).parents[3]
pytestmark = [pytest.mark.peers, pytest.mark.root]


@pytest.fixture
def where() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    with memory_directory() as directory:
        yield directory


def unpacked(layout: Path, bundle: Path, **options: Any) -> UnpackReport:
    source = Layout(layout)
    return unpack(source, source.resolve("12"), bundle, options=UnpackOptions(**{"sync": False, **options}))


def ubuntu_like(where: Path) -> Path:
    """A larger Debian, kept in build/: a merged /usr, setuid programs, one with a capability, Python."""
    require("mmdebstrap")
    kept = PROJECT / "build" / "ubuntu-like.tar"
    if not kept.exists():
        packages = "--include=iputils-ping,uidmap,sudo,python3-minimal"
        call("mmdebstrap", "--variant=apt", packages, "--quiet", "bookworm", where / "image.tar")
        kept.parent.mkdir(exist_ok=True)
        shutil.copy(where / "image.tar", kept.with_suffix(".partial"))
        kept.with_suffix(".partial").rename(kept)
    return kept


def busybox(where: Path) -> Path:
    """One program under hundreds of names, some of them hard links and some symbolic ones."""
    require("busybox", "tar")
    for directory, how in (("bin", ()), ("usr/bin", ("-s",))):
        (where / "root" / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", where / "root" / directory / "busybox")
        call(where / "root" / directory / "busybox", "--install", *how, where / "root" / directory)
    return packed(where)


def pip_tree(where: Path) -> Path:
    """Python packages, some with compiled parts, as pip installs them."""
    require("tar")
    lines = (PROJECT / "requirements" / "dev.txt").read_text().splitlines()
    wanted = [line.split()[0] for line in lines if line.startswith(("click=", "hypothesis=", "zstandard="))]
    assert len(wanted) == 3
    target = where / "root" / "usr" / "lib" / "python3" / "site-packages"
    call(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, *wanted)
    return packed(where)


def npm_tree(where: Path) -> Path:
    """Packages of JavaScript: hundreds of small files in deep directories, and links to programs."""
    require("tar")
    if not shutil.which("npm"):
        pytest.skip("npm is not installed, so no tree of node modules is compared")
    app = where / "root" / "app"
    app.mkdir(parents=True)
    call("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", app, "express@4", "semver@7")
    return packed(where)


def packed(where: Path) -> Path:
    call(
        "tar",
        "--create",
        "--format=posix",
        "--sort=name",
        "--file",
        where / "image.tar",
        "-C",
        where / "root",
        ".",
    )
    return where / "image.tar"


# Each with the fewest files that it has, so that none is taken for one that is empty.
REAL: dict[str, tuple[Callable[[Path], Path], int]] = {
    "ubuntu-like": (ubuntu_like, 8000),
    "busybox": (busybox, 500),
    "pip": (pip_tree, 200),
    "npm": (npm_tree, 500),
}


@pytest.mark.parametrize("name", ["debian", *REAL])
def test_real_trees_come_out_as_umoci_and_gnu_tar_make_them(
    where: Path, name: str, request: pytest.FixtureRequest
) -> None:
    require("umoci", "tar", "skopeo")
    if name == "debian":
        tar, layout = (request.getfixturevalue(f"debian_{kind}") for kind in ("tar", "layout"))
        fewest = 5000
    else:
        make, fewest = REAL[name]
        tar, layout = make(where), where / "layout"
        call("skopeo", "copy", "--quiet", f"tarball:{tar}", f"oci:{layout}:12")
    report = unpacked(layout, where / "ours")
    call("umoci", "unpack", "--image", f"{layout}:12", where / "umoci")
    (where / "theirs").mkdir()
    extract = ["tar", "--extract", "--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*"]
    call(*extract, "--file", tar, "--directory", where / "theirs")
    ours = tree(where / "ours" / "rootfs")
    assert len(ours) > fewest
    assert (report.owners, report.devices, report.xattrs) == (0, 0, 0)
    assert differences(ours, tree(where / "umoci" / "rootfs")) == []
    assert differences(ours, tree(where / "theirs")) == []
    if name == "ubuntu-like":
        assert ours["bin"].target == b"usr/bin"
        assert ours["usr/bin/newuidmap"].mode == 0o4755
        assert [key for key, _ in ours["usr/bin/ping"].xattrs] == ["security.capability"]
    if name == "busybox":
        assert ours["bin/sh"].links > 200
        assert ours["usr/bin/sh"].kind == "l"


def test_several_layers_made_by_buildah_come_out_as_umoci_makes_them(where: Path) -> None:
    require("buildah", "umoci", "busybox")
    context = where / "context"
    context.mkdir()
    (context / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (context / "busybox").chmod(0o755)
    script = """
set -eu
export BUILDAH_ISOLATION=chroot
buildah="buildah --root $1/store --runroot $1/run --storage-driver vfs"
made=$($buildah from scratch)
step() { $buildah run "$made" -- /busybox sh -c "$1"; $buildah commit -q "$made" "oci:$2/image:12" >/dev/null
         $buildah rm "$made" >/dev/null; made=$($buildah from "oci:$2/image:12"); }
$buildah copy -q "$made" "$1/busybox" /busybox >/dev/null
$buildah commit -q "$made" "oci:$1/image:12" >/dev/null
made=$($buildah from "oci:$1/image:12")
step 'b=/busybox; $b mkdir -p /d/sub /keep; $b touch /d/a /d/sub/x /keep/f; $b ln /d/a /d/twin
      $b ln -s d /l; $b mkfifo /p' "$1"
step 'b=/busybox; $b rm -r /d; $b mkdir -p /d/sub; $b touch /d/new; $b rm /keep/f; $b chown 7:8 /keep
      $b chmod 1711 /keep' "$1"
step 'b=/busybox; $b rm /l /p; $b mkdir /l; $b touch /l/now /p; $b chmod 4755 /p' "$1"
"""
    done = subprocess.run(
        ["sh", "-c", script, "sh", str(context)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    layout = context / "image"
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:12", str(where / "umoci")], check=True, capture_output=True
    )
    report = unpacked(layout, where / "ours")
    assert len(report.diff_ids) == 4
    ours, theirs = tree(where / "ours" / "rootfs"), tree(where / "umoci" / "rootfs")
    assert {"d/new", "d/sub", "l/now"} <= ours.keys()
    assert not {"d/a", "d/sub/x", "keep/f"} & ours.keys()
    assert differences(ours, theirs) == []


CONFINED = """
id -u
grep -o '^Seccomp:.*[12]' /proc/self/status
unshare --user true 2>/dev/null || echo no user namespace
perl -e 'socket(S, 1, 1, 0) or die; socket(S, 38, 5, 0) and die; print "no AF_ALG\n"'
perl -e 'ioctl(STDIN, 0x5412, my $key = "x") and die; print "no TIOCSTI: $!\n"'
exit 7
"""


@pytest.mark.parametrize("runtime", ["runc", "crun", "ocitool-runtime"])
def test_a_runtime_takes_the_bundle_unchanged_and_confines_it(
    where: Path, debian_layout: Path, runtime: str
) -> None:
    require("unshare")
    if runtime != "ocitool-runtime":
        require(runtime)
    template = where / "template.json"
    template.write_text(json.dumps({"process": {"args": ["sh", "-c", CONFINED]}}))
    unpacked(debian_layout, where / "bundle", config_template=template)
    # This crun refuses a host that has both kinds of control groups; it need not see the second.
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null; " if runtime == "crun" else ""
    program = shutil.which(runtime, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    run = f"{hide}exec {program} run --bundle {where}/bundle ocitool-golden-{os.getpid()}-{runtime}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", run],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout.splitlines() == [
        "0",
        "Seccomp:\t2",
        "no user namespace",
        "no AF_ALG",
        "no TIOCSTI: Operation not permitted",
    ], done.stderr
    assert done.returncode == 7
