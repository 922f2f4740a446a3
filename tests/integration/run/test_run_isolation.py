"""`ocitool run --isolation` inside of an ordinary container, where root makes no namespaces and no mounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.command import Ocitool
from support.fixtures import layout
from support.peers import require, require_root
from support.run_bundles import OURS, Bundle, Containers

from ocitool.run.defaults import config as default_config

pytestmark = pytest.mark.root

WAYS_OUT = 1 << 18 | 1 << 27  # CAP_SYS_CHROOT, CAP_MKNOD
HELLO = f"oci:{layout()}:hello:1.0"


@pytest.fixture
def home() -> Iterator[Path]:
    """A home outside of pytest's directories, for the container sees it, too."""
    require_root()
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Inside:
    """The command line in a container with the host's files, and no more rights than engines give.

    The default capabilities, the default seccomp profile, a network of its own and masked paths.
    """

    def __init__(self, containers: Containers, home: Path) -> None:
        self.home = home
        self._containers = containers

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        config = default_config()
        config["root"] = {"path": "/"}
        process = config["process"]
        process.update(terminal=False, cwd=str(self.home), args=[sys.executable, "-m", "ocitool", *words])
        process["env"] = [f"{name}={value}" for name, value in Ocitool(self.home).environment.items()]
        # Below the mount on /dev, the host's files stay as they are.
        bundle = Bundle(self.home / "outer", config)
        bundle.path.mkdir(exist_ok=True)
        bundle.save()
        done = self._containers.run(bundle)
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        assert list(self.home.glob("containers/*")) == []
        return done


@pytest.fixture
def inside(containers: Containers, home: Path) -> Inside:
    return Inside(containers, home)


def test_without_namespaces_auto_is_an_error_that_says_what_is_missing(inside: Inside) -> None:
    told = inside("run", HELLO, code=125).stderr
    assert "this host allows no container: no new mount, pid, network, ipc, uts namespace" in told
    assert "--isolation chroot" in told
    assert "--isolation chroot" not in inside("run", "--isolation", "full", HELLO, code=125).stderr


def test_chroot_runs_there_and_says_what_it_is_not(inside: Inside) -> None:
    done = inside("run", "--isolation", "chroot", HELLO)
    assert "Hello" in done.stdout
    assert "NOT isolated" in done.stderr
    inside("run", "--isolation", "chroot", HELLO, "exit", "7", code=7)


def test_chroot_gives_files_devices_names_and_a_user(inside: Inside, busybox_image: str) -> None:
    show = "id -u; pwd; ls /dev; cat /etc/hosts; cat /nothing 2>/dev/null; touch /new && ls /new"
    words = ("--isolation", "chroot", "-u", "alice", "-w", "/tmp")
    lines = inside("run", *words, busybox_image, "--", "sh", "-c", show, code=1).stdout.splitlines()
    assert lines[:2] == ["1234", "/tmp"]
    assert {"null", "zero", "full", "random", "urandom", "tty"} <= set(lines)
    assert "127.0.0.1" in "\n".join(lines)


@contextmanager
def chrooted(home: Path, image: str) -> Iterator[str]:
    """The id of a container in a chroot, which waits until it is killed."""
    command = [sys.executable, "-m", "ocitool", "run", "--isolation", "chroot", "--name", f"{OURS}-chroot"]
    run = subprocess.Popen(
        [*command, image, "--", "sh", "-c", "echo ready; sleep 60"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=Ocitool(home).environment, cwd=home,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    yield f"{OURS}-chroot"
    runtime("kill", f"{OURS}-chroot", "KILL")
    assert run.wait(timeout=60) == 137
    run.stdout.close()


def runtime(*words: str) -> str:
    command = [sys.executable, "-m", "ocitool.run", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def status_of(text: str) -> dict[str, str]:
    """The fields of a process's status file."""
    return dict(line.split(":\t", 1) for line in text.splitlines())


def test_chroot_takes_the_capabilities_away_that_lead_out_of_it(home: Path, busybox_image: str) -> None:
    """Seen from the host, because the program has no /proc."""
    with chrooted(home, busybox_image) as container_id:
        pid = json.loads(runtime("state", container_id))["pid"]
        status = status_of(Path(f"/proc/{pid}/status").read_text())
        assert int(status["CapBnd"], 16) & WAYS_OUT == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir()) == ["0", "1", "2"]


def test_a_further_process_in_a_chroot_is_no_nearer_to_the_host(home: Path, busybox_image: str) -> None:
    with chrooted(home, busybox_image) as container_id:
        first = json.loads(runtime("state", container_id))["pid"]
        command = [sys.executable, "-m", "ocitool.run", "exec", container_id, "sh", "-c", "echo in; sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as further:
            assert further.stdout is not None
            assert further.stdout.readline() == "in\n"
            children = Path(f"/proc/{further.pid}/task/{further.pid}/children").read_text()
            inside = Path(f"/proc/{children.split()[0]}")
            assert (inside / "root").readlink() == Path(f"/proc/{first}/root").readlink()
            assert int(status_of((inside / "status").read_text())["CapBnd"], 16) & WAYS_OUT == 0
            os.kill(int(inside.name), 9)


def test_a_chroots_program_has_a_terminal_of_the_callers_size(home: Path, busybox_image: str) -> None:
    require("busybox")
    ours, theirs = os.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=theirs, check=True)
    look = "test -t 0 && test -t 1 && test -t 2 && stty size"
    words = ["run", "--isolation", "chroot", "-t", busybox_image, "--", "sh", "-c", look]
    done = subprocess.run(
        [sys.executable, "-m", "ocitool", *words], stdin=theirs, stdout=theirs, stderr=theirs,
        env=Ocitool(home).environment, cwd=home, start_new_session=True, check=False,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert done.returncode == 0, said
    assert said.split()[-2:] == ["33", "99"]


def test_what_a_chroots_program_leaves_running_ends_with_it(home: Path, busybox_image: str) -> None:
    require("busybox")
    seconds = str(10**9 + os.getpid())
    start = f"sleep {seconds} & (sleep {seconds} &) ; exit 3"
    Ocitool(home)("run", "--isolation", "chroot", busybox_image, "--", "sh", "-c", start, code=3)
    assert f"sleep\0{seconds}\0".encode() not in command_lines()


def command_lines() -> Iterator[bytes]:
    """Those of all processes; some end while we look."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("-v", "/:/x"), ("--read-only",), ("--memory", "64m"), ("--network", "none"), ("--tmpfs", "/tmp"),
        ("--mount", "type=tmpfs,target=/x"), ("--init",),
    ],
)  # fmt: skip
def test_what_chroot_can_not_give_is_refused(ocitool: Ocitool, words: tuple[str, ...]) -> None:
    told = ocitool("run", "--isolation", "chroot", *words, HELLO, code=125).err
    assert "leave out" in told


def test_a_bundle_is_run_in_a_chroot_and_left_as_it_is(ocitool: Ocitool, tmp_path: Path) -> None:
    require_root()
    ocitool("unpack", HELLO, tmp_path / "bundle")
    before = sorted(str(path) for path in (tmp_path / "bundle").rglob("*"))
    assert "Hello" in ocitool("run", "--isolation", "chroot", tmp_path / "bundle").out
    assert sorted(str(path) for path in (tmp_path / "bundle").rglob("*")) == before
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    config["mounts"].append({"destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]})
    (tmp_path / "bundle" / "config.json").write_text(json.dumps(config))
    assert "mounts nothing" in ocitool("run", "--isolation", "chroot", tmp_path / "bundle", code=125).err
