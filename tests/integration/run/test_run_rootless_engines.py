"""Engines of ordinary users: the runtime is called as root of a user namespace, who is nobody outside."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import ordinary
from support.peers import require
from support.run_bundles import make_rootfs, runtime_script

pytestmark = [pytest.mark.root, pytest.mark.peers]

# Processes that podman leaves to itself end with the namespace of this one, and its mounts are nobody else's.
OUTER = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
PREPARED = f"""{ordinary.DELEGATE}
mknod -m 666 "$1/tun" c 10 200
mount --bind "$1/tun" /dev/net/tun
mount --make-rshared /
shift
exec "$@"
"""
SCRIPT = r"""
podman() {
    command podman --runtime "$RUNTIME" --storage-driver vfs --cgroup-manager cgroupfs \
        --events-backend none "$@"
}
run() { podman run --rm --network none "$@"; }
podman import -q "$HOME/box.tar" box >/dev/null
"""


class Podman:
    """podman of an ordinary user with delegated ids, who has a busybox image named `box`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.chmod(0o755)
        self._runtime = runtime_script(home)
        rootfs = make_rootfs(home / "rootfs")
        subprocess.run(["tar", "-C", rootfs, "-cf", home / "box.tar", "."], check=True)
        for name in ("user", "run"):
            (home / name).mkdir(mode=0o700)
            subprocess.run(["chown", f"{ordinary.NOBODY}:{ordinary.NOBODY}", home / name], check=True)
        (home / "box.tar").rename(home / "user/box.tar")

    def output(self, script: str) -> str:
        """What a shell script prints, in which `podman` and `run` are functions; it must succeed."""
        environment = {
            "HOME": str(self._home / "user"),
            "XDG_RUNTIME_DIR": str(self._home / "run"),
            "RUNTIME": str(self._runtime),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        inner = ordinary.command("sh", "-ec", SCRIPT + script)
        done = subprocess.run(
            [*OUTER, "sh", "-ec", PREPARED, "sh", self._home, *inner],
            env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def podman(ordinary_home: Path) -> Podman:
    require("podman", "newuidmap")
    return Podman(ordinary_home)


def test_podman_of_an_ordinary_user_runs_programs(podman: Podman) -> None:
    script = """
    run box id -u
    run --user 5:6 box sh -c 'id; exit 9' || echo $?
    run --userns keep-id box id -u
    run --memory 64m box echo limited 2>/dev/null
    """
    assert podman.output(script).splitlines() == ["0", "uid=5 gid=6 groups=6", "9", "65534", "limited"]


def test_podman_of_an_ordinary_user_has_the_life_cycle(podman: Podman) -> None:
    script = """
    podman run -d --network none --name one box sleep 100 >/dev/null
    ls -d "$XDG_RUNTIME_DIR"/ocitool/*/ 2>/dev/null | wc -l
    podman exec --user 7 one id -u
    podman inspect --format '{{.State.Status}}' one
    podman kill --signal KILL one >/dev/null
    podman wait one
    podman rm one >/dev/null
    ls -d "$XDG_RUNTIME_DIR"/ocitool/*/ 2>/dev/null | wc -l
    """
    assert podman.output(script).splitlines() == ["1", "7", "running", "137", "0"]


def test_devices_of_the_host_are_mounted_where_none_can_be_made(podman: Podman) -> None:
    script = """
    run --device /dev/net/tun box stat -c '%F %t,%T' /dev/net/tun /dev/null
    run --privileged box sh -c 'echo gone >/dev/full' || echo $?
    """
    expected = ["character special file a,c8", "character special file 1,3", "1"]
    assert podman.output(script).splitlines() == expected


def test_a_pod_of_an_ordinary_user_shares_its_namespaces(podman: Podman) -> None:
    script = """
    podman pod create --name pod --network none --infra-image box --infra-command 'sleep 100' >/dev/null
    podman run --rm --pod pod box hostname
    podman pod rm -f -t 0 pod >/dev/null
    """
    assert podman.output(script).splitlines() == ["pod"]
