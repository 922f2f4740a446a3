"""Bundles and containers for the tests of the runtime: a busybox root file system, and a careful helper."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from support.waiting import until

from ocitool.run.defaults import config as default_config

APPLETS = [
    "cat",
    "chmod",
    "chown",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "nc",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "timeout",
    "touch",
    "true",
    "tty",
    "umount",
    "uname",
    "unshare",
    "wc",
]
BUSYBOX = Path("/bin/busybox")
# An ordinary user may not reach an interpreter in root's home.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
MAIN = str(Path(__file__).parents[2] / "ocitool" / "run" / "__main__.py")
ORDINARY = 1000
# Ids and cgroups that no other session of tests on this machine has.
OURS = f"test-{os.urandom(4).hex()}"
# How a command is held to leaving no mount, in a view to which no neighbour adds one. (Some of those go,
# with directories that neighbours remove.)
NO_NEW_MOUNTS = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    """before=$(cat /proc/self/mountinfo); "$@"; code=$?
    if printf '%s' "$before" | grep -vxFf - /proc/self/mountinfo >&2; then exit 99; fi
    exit $code""",
    "sh",
]
# Whether this host has cgroup version 2 and nothing else.
VERSION_2_ALONE = Path("/sys/fs/cgroup/cgroup.controllers").exists()


def make_rootfs(path: Path) -> Path:
    """A root file system with busybox and nothing else."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin" / "busybox")
    for name in APPLETS:
        (path / "bin" / name).symlink_to("busybox")
    for name in ("proc", "sys", "dev", "etc", "tmp", "root"):
        (path / name).mkdir(mode=0o755)
    return path


def make_bundle(path: Path, *args: str, ordinary: bool = False) -> Bundle:
    """A bundle that runs `args`, on the default configuration without a terminal."""
    path.mkdir(parents=True, exist_ok=True)
    if not (path / "rootfs").exists():
        make_rootfs(path / "rootfs")
    config = default_config()
    config["process"]["terminal"] = False
    config["process"]["args"] = list(args)
    config["root"]["readonly"] = False
    bundle = Bundle(path, config)
    if ordinary:
        bundle.map_single_user(ORDINARY)
        for found in [path, *path.rglob("*")]:
            os.chown(found, ORDINARY, ORDINARY, follow_symlinks=False)
    bundle.save()
    return bundle


class Bundle:
    """A bundle whose configuration can be changed."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.rootfs = path / "rootfs"
        self.config = config

    def map_single_user(self, user: int) -> None:
        linux = self.config["linux"]
        linux["namespaces"].append({"type": "user"})
        for kind in ("uid", "gid"):
            linux[f"{kind}Mappings"] = [{"containerID": 0, "hostID": user, "size": 1}]
        linux.pop("resources", None)

    def save(self) -> None:
        (self.path / "config.json").write_text(json.dumps(self.config))

    def shell(self, script: str) -> Bundle:
        self.config["process"]["args"] = ["sh", "-c", script]
        self.save()
        return self


def runtime_script(base: Path) -> Path:
    """The runtime as an engine calls it: with neither PATH nor HOME, so the interpreter is named in full."""
    script = base / "ocitool-runtime"
    package = MAIN.rsplit("/", 3)[0]
    script.write_text(
        f"#!{PYTHON} -IS\nimport sys\nsys.path.append({package!r})\n"
        "from ocitool.run.__main__ import main\nmain()\n"
    )
    script.chmod(0o755)
    return script


def finished(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; output goes to files, since a container may outlive the command."""
    settings: dict[str, Any] = {"timeout": 120, "stdin": subprocess.DEVNULL, **options}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.run(command, stdout=out, stderr=err, check=False, **settings)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())


def remembered(root: Path) -> list[str]:
    """The ids of all containers in a state directory; the filter kept there for the next one is a file."""
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []


class Containers:
    """The command line under test, on a state directory of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "state"
        self.ordinary_root = base / "ordinary-state"
        self._count = 0

    def command(self, *words: str, ordinary: bool = False) -> list[str]:
        root = self.ordinary_root if ordinary else self.root
        return [PYTHON, "-I", "-S", MAIN, "--root", str(root), *words]

    def call(self, *words: str, ordinary: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        if ordinary and os.geteuid() == 0:
            options.update(user=ORDINARY, group=ORDINARY, extra_groups=[])
        return finished(self.command(*words, ordinary=ordinary), **options)

    def run(
        self, bundle: Bundle, *options: str, ordinary: bool = False, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """`run` a bundle under a fresh id."""
        self._count += 1
        words = ["run", "--bundle", str(bundle.path), *options, f"{OURS}-{self._count}"]
        return self.call(*words, ordinary=ordinary, **settings)

    def output(self, bundle: Bundle, script: str, **settings: Any) -> str:
        """What a shell script prints inside, which must succeed."""
        done = self.run(bundle.shell(script), **settings)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def started(self, bundle: Bundle, container_id: str, *, ordinary: bool = False) -> int:
        """A running container; returns its first process."""
        for words in (("create", "--bundle", str(bundle.path), container_id), ("start", container_id)):
            done = self.call(*words, ordinary=ordinary)
            assert done.returncode == 0, done.stderr
        return int(self.state(container_id, ordinary=ordinary)["pid"])

    def state(self, container_id: str, *, ordinary: bool = False) -> dict[str, Any]:
        done = self.call("state", container_id, ordinary=ordinary)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def remembered(self) -> list[str]:
        """The ids that are in use."""
        return remembered(self.root)

    def wait_for(self, container_id: str, status: str) -> None:
        until(lambda: self.state(container_id)["status"] == status)

    def delete_all(self) -> None:
        for root in (self.root, self.ordinary_root):
            for name in remembered(root):
                self.call("--root", str(root), "delete", "--force", name)


def host_traces(base: Path) -> list[str]:
    """What a container of a test could have left behind: mounts below its directory, and cgroups."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(base) in line]
    cgroups = [
        directory
        for directory, _, _ in os.walk("/sys/fs/cgroup")
        if Path(directory).name.startswith(f"ocitool-{OURS}")
    ]
    return sorted(mounts + cgroups)


def programs_of(home: Path, *names: str) -> list[int]:
    """Running programs of certain names that were started for a test: its home is in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes().split(b"\0")[0].rpartition(b"/")[2]
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsdecode(name) in names and os.fsencode(home) in environment:
            found.append(int(process.name))
    return found
