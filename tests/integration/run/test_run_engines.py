"""Engines that call the runtime, and other runtimes that get its bundles."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.command import Ocitool
from support.peers import require
from support.run_bundles import (
    ORDINARY,
    OURS,
    VERSION_2_ALONE,
    Bundle,
    Containers,
    finished,
    runtime_script,
)
from support.run_daemons import Engine, containerd, dockerd
from support.unpack_images import image
from support.waiting import until

from ocitool.layout import LayoutStore
from ocitool.transfer import copy

pytestmark = [pytest.mark.root, pytest.mark.peers]

IMAGE = "docker.io/library/box:1"
CONFIGURATION = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime_supports_json = ["ocitool-runtime"]
runtime_supports_nocgroup = ["ocitool-runtime"]
[containers]
default_ulimits = []
"""


class Podman:
    """podman with a storage of its own, and with this runtime."""

    def __init__(self, base: Path) -> None:
        self._base = base
        script = runtime_script(base)
        (base / "containers.conf").write_text(CONFIGURATION)
        self._global = [
            "--root",
            str(base / "storage"),
            "--runroot",
            str(base / "run"),
            "--runtime",
            str(script),
        ]
        self._global += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]

    def call(
        self, *words: str, terminal: bool = False, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        command = ["podman", *self._global, *words]
        environment = {**os.environ, "CONTAINERS_CONF": str(self._base / "containers.conf")}
        if terminal:
            return _in_terminal(command, environment)
        with (self._base / "in").open("w+") as nothing:
            return subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=check,
                stdin=nothing,
            )

    def run(self, *words: str, terminal: bool = False) -> subprocess.CompletedProcess[str]:
        return self.call("run", "--rm", "--network", "none", *words, terminal=terminal)


def _in_terminal(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program with a terminal for all of its streams, as a person has it."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # EIO: nobody holds the other end any more
            while data := os.read(ours, 4096):
                said += data
        code = process.wait(120)
    os.close(ours)
    return subprocess.CompletedProcess(command, code, said.decode(), "")


@pytest.fixture
def podman(containers: Containers, bundle: Bundle, workplace: Path) -> Iterator[Podman]:
    """podman with a busybox image named `box`."""
    require("podman")
    found = Podman(workplace)
    archive = workplace / "box.tar"
    subprocess.run(["tar", "-C", str(bundle.rootfs), "-cf", str(archive), "."], check=True)
    found.call("import", str(archive), "box", check=True)
    yield found
    found.call("rm", "--all", "--force", "--time", "0")
    found.call("pod", "rm", "--all", "--force")
    subprocess.run(["umount", str(workplace / "storage/vfs")], check=False, capture_output=True)


def test_podman_run(podman: Podman) -> None:
    done = podman.run("box", "sh", "-c", "echo out; echo err >&2; exit 4")
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")


@pytest.mark.parametrize(("program", "code"), [("nonexistent", 127), ("/etc", 126)])
def test_podman_tells_its_own_codes_by_our_words(podman: Podman, program: str, code: int) -> None:
    assert podman.run("box", program).returncode == code


def test_podman_run_with_a_terminal(podman: Podman) -> None:
    done = podman.run("-it", "box", "sh", "-c", "tty; exit 5", terminal=True)
    assert done.returncode == 5
    assert "/dev/pts/0" in done.stdout


def test_podman_limits_user_volume_and_read_only_root(podman: Podman, workplace: Path) -> None:
    volume = workplace / "volume"
    volume.mkdir()
    (volume / "file").write_text("content\n")
    words = [
        "--memory",
        "64m",
        "--pids-limit",
        "33",
        "--read-only",
        "--user",
        "12:34",
        "-v",
        f"{volume}:/v:ro",
    ]
    limits = "memory.max pids.max" if VERSION_2_ALONE else "memory/memory.limit_in_bytes pids/pids.max"
    script = (
        f"id -u; id -g; cat /v/file; cd /sys/fs/cgroup; cat {limits};"
        " echo > /x || echo read-only; grep -c Seccomp:.2 /proc/self/status"
    )
    done = podman.run(*words, "box", "sh", "-c", script)
    assert done.stdout.split() == ["12", "34", "content", str(64 << 20), "33", "read-only", "1"]


def test_podman_start_exec_stop_and_rm(podman: Podman) -> None:
    podman.call("run", "-d", "--network", "none", "--name", "one", "box", "sleep", "600", check=True)
    done = podman.call("exec", "one", "sh", "-c", "cat /proc/1/cmdline; exit 3")
    assert (done.returncode, done.stdout) == (3, "sleep\x00600\0")
    assert podman.call("exec", "-it", "one", "sh", "-c", "tty; exit 6", terminal=True).returncode == 6
    podman.call("pause", "one", check=True)
    podman.call("unpause", "one", check=True)
    podman.call("stop", "--time", "0", "one", check=True)
    podman.call("start", "one", check=True)
    podman.call("rm", "--force", "--time", "0", "one", check=True)


def test_podman_containers_share_namespaces(podman: Podman) -> None:
    podman.call("run", "-d", "--network", "none", "--name", "first", "box", "sleep", "600", check=True)
    script = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc"
    first = podman.call("exec", "first", "sh", "-c", script, check=True)
    words = (
        "run",
        "--rm",
        "--network",
        "container:first",
        "--ipc",
        "container:first",
        "box",
        "sh",
        "-c",
        script,
    )
    assert podman.call(*words, check=True).stdout == first.stdout


def test_podman_runs_a_pod_around_a_container_that_only_waits(podman: Podman) -> None:
    """The pod's own container, from a local image, holds the namespaces, the process numbers among them."""
    pod = ["pod", "create", "--name", "pod", "--network", "none", "--share", "net,ipc,uts,pid"]
    podman.call(*pod, "--infra-image", "box", "--infra-command", "sleep 600", check=True)
    script = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; cat /proc/1/cmdline"
    podman.call("run", "-d", "--pod", "pod", "--name", "one", "box", "sleep", "600", check=True)
    namespaces = podman.call("exec", "one", "sh", "-c", script, check=True).stdout
    other = podman.call("run", "--rm", "--pod", "pod", "box", "sh", "-c", f"{script}; exit 7")
    assert (other.returncode, other.stdout) == (7, namespaces), other.stderr
    assert namespaces.endswith("\nsleep\x00600\0")
    podman.call("pod", "stop", "--time", "0", "pod", check=True)
    podman.call("pod", "start", "pod", check=True)
    assert "Running" in podman.call("pod", "ps", check=True).stdout
    podman.call("pod", "rm", "--force", "--time", "0", "pod", check=True)


@pytest.mark.parametrize("option", ["rslave", "rshared"])
def test_podman_volumes_that_pass_mounts_on(podman: Podman, workplace: Path, option: str) -> None:
    volume = workplace / "volume"
    volume.mkdir()
    script = "grep -c ' /v .*\\(shared\\|master\\)' /proc/self/mountinfo"
    subprocess.run(["mount", "-t", "tmpfs", "--make-shared", "x", volume], check=True)
    try:
        done = podman.run("-v", f"{volume}:/v:{option}", "box", "sh", "-c", script)
    finally:
        subprocess.run(["umount", volume], check=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.usefixtures("podman")
def test_buildah_run(bundle: Bundle, workplace: Path) -> None:
    require("buildah")
    base = [
        "buildah",
        "--root",
        str(workplace / "b"),
        "--runroot",
        str(workplace / "br"),
        "--storage-driver",
        "vfs",
    ]
    environment = {**os.environ, "CONTAINERS_CONF": str(workplace / "containers.conf")}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base, *words], env=environment, capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    name = call("from", "scratch").stdout.strip()
    target = call("mount", name).stdout.strip()
    subprocess.run(["cp", "-a", f"{bundle.rootfs}/.", target], check=True)
    options = ("--runtime", str(workplace / "ocitool-runtime"), "--isolation", "oci", "--network", "none")
    done = call("run", *options, name, "--", "sh", "-c", "echo inside; exit 3")
    call("rm", "--all")
    assert (done.returncode, done.stdout) == (3, "inside\n"), done.stderr


def _archive(bundle: Bundle, where: Path) -> str:
    """The bundle's root file system as an image, in an archive that our own `copy` has written."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as writing:
        writing.add(bundle.rootfs, arcname=".")
    made = image(tar.getvalue(), config={"Env": ["PATH=/bin"]})
    made.store.tag(made.manifest, "box")
    layout = where / "layout"
    copy(made.store, LayoutStore(layout), "box")
    Ocitool(where)("copy", f"oci:{layout}:box", f"docker-archive:{where}/image.tar:{IMAGE}")
    return str(where / "image.tar")


@pytest.fixture
def ctr(containers: Containers, bundle: Bundle, workplace: Path) -> Iterator[Engine]:
    """containerd with a busybox image."""
    require("containerd", "ctr")
    with containerd(workplace, runtime_script(workplace)) as engine:
        archive = _archive(bundle, workplace)
        engine.call("images", "import", "--snapshotter", "native", archive, check=True)
        yield engine


@pytest.fixture
def docker(containers: Containers, bundle: Bundle, workplace: Path) -> Iterator[Engine]:
    """docker with a busybox image."""
    require("docker", "dockerd", "containerd")
    with dockerd(workplace, runtime_script(workplace)) as engine:
        engine.call("load", "--input", _archive(bundle, workplace), check=True)
        yield engine


def test_containerd_runs_containers(ctr: Engine) -> None:
    # What a program says in its last moment, this client may lose: it cuts its own copying short.
    script = "echo out; echo err >&2; read go; exit 4"
    command = [*ctr.command, "run", "--rm", *ctr.runtime, IMAGE, "one", "sh", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        assert started.stderr is not None
        assert (started.stdout.readline(), started.stderr.readline()) == ("out\n", "err\n")
        assert started.communicate("go\n", timeout=60) == ("", "")
        assert started.returncode == 4
    words = ["--seccomp", "--read-only", "--memory-limit", str(64 << 20)]
    ctr.call("run", "--detach", *words, *ctr.runtime, IMAGE, "two", "sleep", "600", check=True)
    script = "grep -c Seccomp:.2 /proc/1/status; cat /proc/1/cmdline; echo > /x || echo; exit 5"
    done = ctr.call("task", "exec", "--exec-id", "more", "two", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (5, "1\nsleep\x00600\0\n")
    ctr.call("task", "pause", "two", check=True)
    assert "PAUSED" in ctr.call("task", "ls").stdout
    ctr.call("task", "resume", "two", check=True)
    assert str(64 << 20) in ctr.call("task", "metrics", "two").stdout
    ctr.call("task", "kill", "--signal", "KILL", "two", check=True)
    until(lambda: "STOPPED" in ctr.call("task", "ls").stdout)
    ctr.call("task", "delete", "two")
    ctr.call("container", "delete", "two", check=True)


def test_docker_runs_containers(docker: Engine, workplace: Path) -> None:
    run = ("run", *docker.runtime)
    done = docker.call(*run, "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 4")
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")
    assert docker.call(*run, "--rm", IMAGE, "nonexistent").returncode == 127
    assert docker.call(*run, "--rm", IMAGE, "/etc").returncode == 126
    (workplace / "volume").mkdir()
    words = ["--memory", "64m", "--pids-limit", "33", "--read-only", "--tmpfs", "/new", "--user", "12:34"]
    words += ["--volume", f"{workplace}/volume:/v:ro", "--init", "--name", "one"]
    docker.call(*run, "--detach", *words, IMAGE, "sleep", "600", check=True)
    script = (
        "id -u; echo > /v/x || echo no; echo > /new/x && echo yes; grep -c Seccomp:.2 /proc/1/status; exit 5"
    )
    done = docker.call("exec", "one", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (5, "12\nno\nyes\n1\n")
    docker.call("pause", "one", check=True)
    docker.call("unpause", "one", check=True)
    docker.call("update", "--memory", "48m", "--memory-swap", "96m", "one", check=True)
    assert "48MiB" in docker.call("stats", "--no-stream", "one").stdout
    docker.call("stop", "--time", "1", "one", check=True)
    docker.call("start", "one", check=True)
    docker.call("rm", "--force", "one", check=True)


@pytest.mark.parametrize("other", ["runc", "crun"])
def test_the_same_bundle_runs_under_other_runtimes(
    containers: Containers, bundle: Bundle, other: str
) -> None:
    require(other)
    bundle.shell("grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; hostname; exit 7")
    ours = containers.run(bundle)
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null; "
    command = f"{hide}exec {other} run --bundle {bundle.path} ocitool-{OURS}-{other}"
    theirs = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (theirs.returncode, theirs.stdout) == (ours.returncode, ours.stdout), theirs.stderr


@pytest.mark.parametrize("other", ["runc", "crun"])
def test_what_spec_writes_for_an_ordinary_user_runs_under_other_runtimes(
    containers: Containers, ordinary_bundle: Bundle, other: str
) -> None:
    require(other)
    (ordinary_bundle.path / "config.json").unlink()
    words = ("spec", "--rootless", "--bundle", str(ordinary_bundle.path))
    assert containers.call(*words, ordinary=True).returncode == 0
    ordinary_bundle.config = json.loads((ordinary_bundle.path / "config.json").read_text())
    ordinary_bundle.config["process"]["terminal"] = False
    ordinary_bundle.shell("grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ls /sys /dev/pts; exit 7")
    ours = containers.run(ordinary_bundle, ordinary=True)
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null; "
    root = containers.ordinary_root / other
    them = f"{other} --root {root} run --bundle {ordinary_bundle.path} ocitool-{OURS}-{other}"
    user = f"setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups"
    theirs = finished(["unshare", "--mount", "sh", "-c", f"{hide}exec {user} {them}"])
    assert (theirs.returncode, theirs.stdout) == (ours.returncode, ours.stdout), theirs.stderr
    assert ours.returncode == 7


@pytest.mark.parametrize("other", ["runc", "crun"])
def test_bundles_of_other_runtimes_run_here(containers: Containers, bundle: Bundle, other: str) -> None:
    require(other)
    (bundle.path / "config.json").unlink()
    subprocess.run([other, "spec"], cwd=bundle.path, check=True)
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.config["process"]["terminal"] = False
    assert containers.run(bundle.shell("exit 9")).returncode == 9
