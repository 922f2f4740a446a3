"""A container that inherits the host's mount namespace: none of its mounts are on the host (RN-19)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.peers import WITHOUT_HYBRID, require
from support.run_bundles import NO_NEW_MOUNTS, OURS, Bundle, Containers, finished

from ocitool.errors import InvalidContent, Unsupported

pytestmark = pytest.mark.root


@pytest.fixture
def sharing(bundle: Bundle) -> Bundle:
    """The default configuration, less its mount namespace."""
    kept = [entry for entry in bundle.config["linux"]["namespaces"] if entry["type"] != "mount"]
    bundle.config["linux"]["namespaces"] = kept
    bundle.save()
    return bundle


def _on_the_host(containers: Containers) -> list[str]:
    """The mounts that can only be the container's: below its root, or the one that it tries to make."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(containers.base) in line or "canary" in line]


def test_it_has_the_hosts_mount_namespace_and_a_root_of_its_own(
    containers: Containers, sharing: Bundle
) -> None:
    script = "readlink /proc/self/ns/mnt; ls /; pwd; cat /proc/self/mountinfo"
    namespace, *seen = containers.output(sharing, script).splitlines()
    assert namespace == str(Path("/proc/self/ns/mnt").readlink())
    assert seen == [*sorted(path.name for path in sharing.rootfs.iterdir()), "/"]
    assert _on_the_host(containers) == []


def test_without_any_namespace_there_is_still_a_root_of_its_own(
    containers: Containers, bundle: Bundle
) -> None:
    bundle.config["linux"] = {}
    for name in ("hostname", "domainname"):
        bundle.config.pop(name, None)
    assert "busybox" in containers.output(bundle, "ls /bin")
    assert not (bundle.rootfs / "proc" / "self").exists()


def test_mounts_masks_and_read_only_paths_are_in_force(containers: Containers, sharing: Bundle) -> None:
    sharing.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(sharing.path), "options": ["rbind", "ro"]}
    )
    sharing.config["root"]["readonly"] = True
    script = (
        "ls /data; touch /data/x; touch /x; cat /proc/keys | wc -c; echo 1 > /proc/sys/kernel/printk;"
        " echo fine > /dev/shm/x && cat /dev/shm/x; echo nothing > /dev/null; ls /proc/self/fd | wc -l"
    )
    done = containers.run(sharing.shell(script))
    assert done.stdout.split() == ["config.json", "rootfs", "0", "fine", "4"]
    assert done.stderr.count("Read-only file system") == 3
    assert _on_the_host(containers) == []


def test_what_is_mounted_can_neither_be_changed_nor_added_to(containers: Containers, sharing: Bundle) -> None:
    for kind in ("bounding", "effective", "permitted"):
        sharing.config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    sharing.config["linux"].pop("seccomp", None)
    script = (
        "mount -t tmpfs canary /tmp && echo mounted; umount -l /proc && echo lifted;"
        " mount -o remount,rw,bind /proc/sys && echo changed; umount -l /proc/keys && echo unmasked; true"
    )
    assert containers.output(sharing, script) == ""
    assert _on_the_host(containers) == []


def test_nothing_is_on_the_host_while_it_runs_and_after_a_kill(
    containers: Containers, sharing: Bundle
) -> None:
    pid = containers.started(sharing.shell("sleep 60"), f"{OURS}-shared")
    assert _on_the_host(containers) == []
    os.kill(pid, signal.SIGKILL)
    containers.wait_for(f"{OURS}-shared", "stopped")
    assert _on_the_host(containers) == []
    assert containers.call("delete", f"{OURS}-shared").returncode == 0


def test_a_failed_create_leaves_no_mount(containers: Containers, sharing: Bundle) -> None:
    sharing.config["mounts"].append(
        {"destination": "/x", "type": "bind", "source": f"{sharing.path}/missing"}
    )
    sharing.config["mounts"][-1]["options"] = ["bind"]
    assert containers.run(sharing.shell("true")).returncode == 125
    assert _on_the_host(containers) == []


@pytest.mark.parametrize(
    ("point", "code"), [("createRuntime", -signal.SIGKILL), ("createContainer", 125), ("startContainer", 137)]
)
def test_who_is_killed_on_the_way_leaves_no_mount(
    containers: Containers, sharing: Bundle, point: str, code: int
) -> None:
    """The runtime, which runs the first of these hooks, or the container's process, which runs the others."""
    # The first process of a pid namespace is out of reach of those inside.
    namespaces = sharing.config["linux"]["namespaces"]
    sharing.config["linux"]["namespaces"] = [entry for entry in namespaces if entry["type"] != "pid"]
    sharing.config["hooks"] = {point: [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]}
    assert containers.run(sharing.shell("true")).returncode == code
    assert _on_the_host(containers) == []


def test_a_further_process_is_in_its_root_and_namespaces(containers: Containers, sharing: Bundle) -> None:
    containers.started(sharing.shell("hostname inside; sleep 60"), f"{OURS}-shared")
    script = "ls /; head -c 5 /proc/1/cmdline; echo; readlink /proc/self/ns/mnt"
    done = containers.call("exec", f"{OURS}-shared", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in sharing.rootfs.iterdir())
    assert done.stdout.split()[: len(names)] == names
    assert "sleep" in done.stdout
    assert done.stdout.split()[-1] == str(Path("/proc/self/ns/mnt").readlink())


def test_a_further_process_has_a_terminal_of_the_containers(containers: Containers, sharing: Bundle) -> None:
    containers.started(sharing.shell("sleep 60"), f"{OURS}-shared")
    ours, theirs = os.openpty()
    command = containers.command("exec", "-t", f"{OURS}-shared", "tty")
    done = subprocess.run(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, check=False
    )
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert (done.returncode, said.split()) == (0, ["/dev/pts/0"])


def test_hooks_in_the_container_see_its_root(containers: Containers, sharing: Bundle) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/null; ls /bin > /hooked"]}
    sharing.config["hooks"] = {"startContainer": [hook]}
    containers.output(sharing, "true")
    assert "busybox" in (sharing.rootfs / "hooked").read_text()


def test_what_takes_a_namespace_of_its_own_is_refused(containers: Containers, sharing: Bundle) -> None:
    sharing.config["linux"]["rootfsPropagation"] = "slave"
    done = containers.run(sharing.shell("true"))
    assert done.returncode == InvalidContent.exit_code
    assert "linux.rootfsPropagation needs a mount namespace" in done.stderr
    sharing.config["linux"]["rootfsPropagation"] = "private"
    volume = {"destination": "/v", "type": "bind", "source": "/tmp", "options": ["rbind", "rshared"]}
    sharing.config["mounts"].append(volume)
    done = containers.run(sharing.shell("true"))
    assert done.returncode == InvalidContent.exit_code
    assert "the mount on /v needs a mount namespace" in done.stderr


@pytest.mark.parametrize("runtime", ["ocitool", "crun", "runc"])
def test_a_user_namespace_without_a_mount_namespace_is_refused_here_and_elsewhere(
    containers: Containers, sharing: Bundle, runtime: str
) -> None:
    sharing.map_single_user(0)
    del sharing.config["linux"]["maskedPaths"], sharing.config["linux"]["readonlyPaths"]
    sharing.shell("true")
    if runtime == "ocitool":
        done = containers.run(sharing)
        assert done.returncode == Unsupported.exit_code
        assert "a container with a user namespace needs a mount namespace" in done.stderr
        return
    require(runtime)
    words = [runtime, "--root", str(containers.root), "run", "--bundle", str(sharing.path), f"{OURS}-peer"]
    done = finished([*NO_NEW_MOUNTS, *WITHOUT_HYBRID, *words])
    assert done.returncode == 1
    assert "operation not permitted" in done.stderr.lower()


# What the program of such a container could do, with a root directory that is not its mount namespace's.
LEAVE_THE_ROOT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chroot(sys.argv[1])
os.chdir("/")
print(os.path.exists(sys.argv[2]))
assert libc.unshare(0x20000) == 0
assert libc.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0x20000) == 0
print(os.path.exists(sys.argv[2]))
"""


def test_root_of_a_user_namespace_leaves_a_root_that_is_in_no_mount_namespace_of_its_own(
    workplace: Path, bundle: Bundle
) -> None:
    """Why such a container is refused; by a kernel that forbids this, it need not be."""
    canary = workplace / "canary"
    canary.touch()
    prepare = 'mount --rbind /proc "$1/proc"; exec unshare --user --map-root-user -- "$2" -c "$3" "$1" "$4"'
    words = [str(bundle.rootfs), sys.executable, LEAVE_THE_ROOT, str(canary)]
    done = finished(["unshare", "--mount", "--propagation=private", "sh", "-ec", prepare, "sh", *words])
    assert done.stdout.split() == ["False", "True"], done.stderr
