"""`--systemd-cgroup` where systemd is the first process, as below `scripts/test-in-vm --cgroups systemd`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peers import require
from support.run_bundles import ORDINARY, OURS, Bundle, Containers, finished, make_rootfs, runtime_script
from support.run_daemons import Engine, dockerd

BUS = Path("/run/dbus/system_bus_socket")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (Path("/run/systemd/system").is_dir() and BUS.exists()),
        reason="systemd does not run here: scripts/test-in-vm --cgroups systemd runs these tests",
    ),
]
SCOPE = f"made-{OURS}.scope"


def shown(*properties: str, unit: str = SCOPE) -> dict[str, str]:
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


@pytest.fixture
def scoped(bundle: Bundle) -> Bundle:
    linux = bundle.config["linux"]
    linux["cgroupsPath"] = f"ocitooltest.slice:made:{OURS}"
    assert {"type": "cgroup"} in linux["namespaces"]
    linux["resources"].update(
        {"memory": {"limit": 64 << 20}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 50}}
    )
    return bundle


def test_systemd_has_a_scope_with_the_limits_from_create_to_delete(
    containers: Containers, scoped: Bundle
) -> None:
    words = ("--systemd-cgroup", "create", "--bundle", str(scoped.shell("sleep 60").path), f"{OURS}-scope")
    done = containers.call(*words, timeout=120)
    assert done.returncode == 0, done.stderr
    assert shown("ActiveState", "Slice", "Delegate", "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec") == {
        "ActiveState": "active",
        "Slice": "ocitooltest.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 << 20),
        "TasksMax": "50",
        "CPUQuotaPerSecUSec": "500ms",
    }
    assert containers.call("start", f"{OURS}-scope").returncode == 0
    assert containers.call("update", "--pids-limit", "70", f"{OURS}-scope").returncode == 0
    assert shown("TasksMax") == {"TasksMax": "70"}
    inside = containers.call("exec", f"{OURS}-scope", "cat", "/proc/self/cgroup")
    assert (inside.stdout, inside.stderr) == ("0::/\n", "")
    (pid,) = json.loads(containers.call("ps", "--format", "json", f"{OURS}-scope").stdout)
    assert f"/ocitooltest.slice/{SCOPE}" in Path(f"/proc/{pid}/cgroup").read_text()
    assert containers.call("pause", f"{OURS}-scope").returncode == 0
    assert containers.state(f"{OURS}-scope")["status"] == "paused"
    assert containers.call("resume", f"{OURS}-scope").returncode == 0
    assert containers.call("delete", "--force", f"{OURS}-scope").returncode == 0
    assert shown("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}


def test_whoever_stops_the_scope_stops_the_container(containers: Containers, scoped: Bundle) -> None:
    script = "trap 'exit 7' TERM; touch /ready; while :; do sleep 1; done"
    words = ("--systemd-cgroup", "run", "--bundle", str(scoped.shell(script).path), f"{OURS}-scope")
    run = subprocess.Popen(containers.command(*words))
    while not (scoped.rootfs / "ready").exists():
        assert run.poll() is None
        time.sleep(0.1)
    subprocess.run(["systemctl", "stop", SCOPE], check=True)
    assert run.wait(60) == 7
    assert shown("LoadState") == {"LoadState": "not-found"}


MANAGER = """\
[Unit]
DefaultDependencies=no
[Service]
User={user}
Type=notify
Slice=user-{user}.slice
Delegate=pids memory cpu
Environment=XDG_RUNTIME_DIR={directory}
ExecStart=/lib/systemd/systemd --user --unit=basic.target
"""
BUS_OF_USER = {
    "dbus.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%t/bus\n",
    "dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\n"
    "ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile\n",
}


class Login:
    """An ordinary user who has a manager and a session, as after a login.

    Attributes:
        directory: the user's run-time directory.
        user: the user's number.
    """

    def __init__(self, user: int, directory: Path) -> None:
        self.user, self.directory = user, directory
        Path("/etc/passwd").write_text(f"root:x:0:0::/root:/bin/sh\ntester:x:{user}:{user}::/:/bin/sh\n")
        for name in ("subuid", "subgid"):
            Path(f"/etc/{name}").write_text(f"{user}:100000:65536\n")
        units = directory / "systemd/user"
        units.mkdir(parents=True)
        for name, text in BUS_OF_USER.items():
            (units / name).write_text(text)
        subprocess.run(["chown", "-R", f"{user}:{user}", directory], check=True)
        unit = Path(f"/run/systemd/system/user@{user}.service")
        unit.write_text(MANAGER.format(user=user, directory=directory))
        for words in (["daemon-reload"], ["start", unit.name]):
            subprocess.run(["systemctl", *words], check=True)
        assert self.call("systemctl", "--user", "start", "dbus.socket").returncode == 0

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the session, to its end."""
        session = ["systemd-run", "--quiet", "--scope", f"--slice=user-{self.user}.slice"]
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "env", "-i"]
        environment = [
            f"PATH={os.environ['PATH']}",
            f"XDG_RUNTIME_DIR={self.directory}",
            f"HOME={self.directory}",
        ]
        return finished([*session, *become, *environment, *command], timeout=300)

    def close(self) -> None:
        subprocess.run(["systemctl", "stop", f"user@{self.user}.service"], check=True)


@pytest.fixture
def login(workplace: Path) -> Iterator[Login]:
    if not Path("/run/vm/start").exists():
        pytest.skip("it changes accounts and units: scripts/test-in-vm --cgroups systemd runs this test")
    found = Login(ORDINARY, workplace / "login")
    yield found
    found.close()


def test_the_manager_of_a_user_has_the_scope_of_a_container_from_a_session(
    login: Login, containers: Containers, ordinary_bundle: Bundle
) -> None:
    linux = ordinary_bundle.config["linux"]
    linux["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}
    ordinary_bundle.shell("cat /proc/self/cgroup; sleep 60")
    words = ("--systemd-cgroup", "create", "--bundle", str(ordinary_bundle.path), f"{OURS}-scope")
    done = login.call(*containers.command(*words, ordinary=True))
    assert done.returncode == 0, done.stderr
    shown = login.call(
        "systemctl", "--user", "show", f"ocitool-{OURS}-scope.scope", "--property=MemoryMax,TasksMax"
    )
    assert sorted(shown.stdout.split()) == [f"MemoryMax={64 << 20}", "TasksMax=50"]
    assert login.call(*containers.command("start", f"{OURS}-scope", ordinary=True)).returncode == 0
    listed = login.call(*containers.command("ps", "--format", "json", f"{OURS}-scope", ordinary=True))
    (pid,) = json.loads(listed.stdout)
    scope = f"/user-{login.user}.slice/user@{login.user}.service/user.slice/ocitool-{OURS}-scope.scope"
    assert scope in Path(f"/proc/{pid}/cgroup").read_text()
    inside = login.call(
        *containers.command("exec", f"{OURS}-scope", "cat", "/proc/self/cgroup", ordinary=True)
    )
    assert (inside.stdout, inside.stderr) == ("0::/\n", "")
    done = login.call(*containers.command("delete", "--force", f"{OURS}-scope", ordinary=True))
    assert (done.returncode, done.stderr) == (0, "")
    shown = login.call("systemctl", "--user", "show", f"ocitool-{OURS}-scope.scope", "--property=LoadState")
    assert shown.stdout == "LoadState=not-found\n"


def test_podman_of_a_user_has_the_manager_make_its_cgroups(login: Login) -> None:
    rootfs = make_rootfs(login.directory / "rootfs")
    subprocess.run(["tar", "-C", rootfs, "-cf", login.directory / "box.tar", "."], check=True)
    podman = ["podman", "--runtime", str(runtime_script(login.directory.parent)), "--events-backend", "none"]
    podman += ["--storage-driver", "vfs", "--cgroup-manager", "systemd"]
    assert login.call(*podman, "import", str(login.directory / "box.tar"), "box").returncode == 0
    limits = ["--memory", "64m", "--pids-limit", "20", "--cpus", "0.5"]
    read = "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max && exit 3"
    done = login.call(*podman, "run", "--rm", "--network", "none", *limits, "box", "sh", "-c", read)
    assert (done.returncode, done.stdout) == (3, f"{64 << 20}\n20\n50000 100000\n"), done.stderr


LIMITS = ("--memory", "64m", "--pids-limit", "20", "--cpus", "0.5")
READ_LIMITS = "cat /proc/self/cgroup; cd /sys/fs/cgroup && cat memory.max pids.max cpu.max; exit 3"
OBEDIENT = ("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done")


@pytest.fixture
def podman(workplace: Path) -> Iterator[Engine]:
    """Root's podman, whose containers' cgroups are systemd's to make, with an image named `box`."""
    require("podman")
    configuration = workplace / "containers.conf"
    configuration.write_text('[containers]\ndefault_ulimits = []\n[engine]\nevents_logger = "none"\n')
    command = [
        "env",
        f"CONTAINERS_CONF={configuration}",
        "podman",
        "--runtime",
        str(runtime_script(workplace)),
    ]
    command += ["--root", str(workplace / "storage"), "--runroot", str(workplace / "run")]
    engine = Engine(
        [*command, "--storage-driver", "vfs", "--cgroup-manager", "systemd"], ["--network", "none"]
    )
    archive = _archive(workplace)
    engine.call("import", str(archive), "box", check=True)
    yield engine
    engine.call("rm", "--all", "--force", "--time", "0")
    engine.call("pod", "rm", "--all", "--force")
    subprocess.run(["umount", str(workplace / "storage/vfs")], check=False, capture_output=True)


@pytest.fixture
def docker(workplace: Path) -> Iterator[Engine]:
    """docker, whose containers' cgroups are systemd's to make, with an image named `box`."""
    require("docker", "dockerd", "containerd")
    with dockerd(workplace, runtime_script(workplace), cgroups="systemd") as engine:
        engine.call("import", str(_archive(workplace)), "box", check=True)
        yield engine


def _archive(workplace: Path) -> Path:
    archive = workplace / "box.tar"
    subprocess.run(["tar", "-C", make_rootfs(workplace / "rootfs"), "-cf", archive, "."], check=True)
    return archive


def _lives_in_a_scope(engine: Engine, prefix: str) -> None:
    """A container from its start to its removal, of which systemd knows until then and no longer."""
    done = engine.call("run", *engine.runtime, "--rm", *LIMITS, "box", "sh", "-c", READ_LIMITS)
    assert (done.returncode, done.stdout) == (3, f"0::/\n{64 << 20}\n20\n50000 100000\n"), done.stderr
    words = ("run", *engine.runtime, "--detach", "--name", "one", "--memory", "64m", "box")
    scope = f"{prefix}-{engine.call(*words, *OBEDIENT, check=True).stdout.strip()}.scope"
    assert shown("ActiveState", "Delegate", "MemoryMax", unit=scope) == {
        "ActiveState": "active",
        "Delegate": "yes",
        "MemoryMax": str(64 << 20),
    }
    done = engine.call("exec", "one", "sh", "-c", "cat /proc/self/cgroup; exit 4")
    assert (done.returncode, done.stdout) == (4, "0::/\n"), done.stderr
    engine.call("pause", "one", check=True)
    assert "Paused" in engine.call("ps", "--all", "--format", "{{.Status}}", check=True).stdout
    engine.call("unpause", "one", check=True)
    engine.call("stop", "one", check=True)
    assert engine.call("inspect", "one", "--format", "{{.State.ExitCode}}").stdout == "7\n"
    assert shown("ActiveState", unit=scope) == {"ActiveState": "inactive"}
    engine.call("start", "one", check=True)
    assert shown("ActiveState", unit=scope) == {"ActiveState": "active"}
    engine.call("rm", "--force", "one", check=True)
    assert shown("ActiveState", unit=scope) == {"ActiveState": "inactive"}


def test_podman_of_root_has_systemd_make_its_cgroups(podman: Engine) -> None:
    _lives_in_a_scope(podman, "libpod")


def test_containers_of_a_pod_are_in_the_slice_that_podman_has_systemd_make(podman: Engine) -> None:
    create = ("pod", "create", "--name", "pod", "--network", "none")
    pod = podman.call(
        *create, "--infra-image", "box", "--infra-command", "sleep 1d", check=True
    ).stdout.strip()
    done = podman.call("run", "--rm", "--pod", "pod", "box", "hostname")
    assert (done.returncode, done.stdout) == (0, "pod\n"), done.stderr
    words = ("run", "--detach", "--pod", "pod", "--name", "one", "box")
    scope = f"libpod-{podman.call(*words, *OBEDIENT, check=True).stdout.strip()}.scope"
    assert shown("Slice", unit=scope) == {"Slice": f"machine-libpod_pod_{pod}.slice"}
    podman.call("pod", "stop", "--time", "1", "pod", check=True)
    podman.call("pod", "rm", "pod", check=True)
    assert shown("ActiveState", unit=scope) == {"ActiveState": "inactive"}


def test_docker_has_systemd_make_its_cgroups(docker: Engine) -> None:
    _lives_in_a_scope(docker, "docker")
    words = ("run", *docker.runtime, "--detach", "--name", "two", *LIMITS, "box", "sleep", "600")
    scope = f"docker-{docker.call(*words, check=True).stdout.strip()}.scope"
    docker.call("update", "--memory", "48m", "--memory-swap", "96m", "two", check=True)
    assert shown("MemoryMax", unit=scope) == {"MemoryMax": str(48 << 20)}
    docker.call("rm", "--force", "two", check=True)
