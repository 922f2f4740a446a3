"""`ocitool run --network`, with real traffic to a server on the host, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ordinary
from support.command import Ocitool
from support.ordinary import NOBODY
from support.peers import require, require_root
from support.run_bundles import programs_of
from support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.peers]

LOOPBACK = "slirp4netns:allow_host_loopback=true"
# The machine may keep the device for root; in this view of the mounts it is everybody's.
OPEN_TUN = """
mknod -m 666 "$1/tun" c 10 200
mount --bind "$1/tun" /dev/net/tun
shift
exec "$@"
"""


class Hello(socketserver.BaseRequestHandler):
    """Says where it is."""

    def handle(self) -> None:
        self.request.sendall(b"the host\n")


@pytest.fixture
def server() -> Iterator[int]:
    """A server on the host's loopback address; its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hello) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_address[1]
        found.shutdown()


@pytest.fixture
def home() -> Iterator[Path]:
    require_root()
    if not Path("/dev/net/tun").exists():
        pytest.skip("this kernel has no /dev/net/tun")
    path = Path(tempfile.mkdtemp())
    os.chown(path, NOBODY, NOBODY)
    yield path
    # A host that the helper may not leave running on.
    assert programs_of(path, "slirp4netns", "pasta") == []
    shutil.rmtree(path)


def run(home: Path, *words: str, as_root: bool = False, tun: bool = True) -> subprocess.CompletedProcess[str]:
    command = command_line(home, *words, as_root=as_root, tun=tun)
    found = Ocitool(home)
    done = subprocess.run(
        command, env=found.environment, cwd=home, text=True, check=False, timeout=120, capture_output=True
    )
    assert "Traceback" not in done.stderr
    assert list(home.glob("containers/*")) == []
    return done


def command_line(home: Path, *words: str, as_root: bool = False, tun: bool = True) -> list[str]:
    program = [sys.executable, "-m", "ocitool", "run", *words]
    command = program if as_root else ordinary.command(*program)
    opened = ["unshare", "--mount", "--propagation=private", "sh", "-ec", OPEN_TUN, "sh", str(home)]
    return [*opened, *command] if tun else command


@pytest.mark.parametrize("as_root", [True, False], ids=["root", "ordinary"])
def test_slirp4netns_reaches_the_hosts_loopback_only_where_that_is_allowed(
    home: Path, busybox_image: str, server: int, *, as_root: bool
) -> None:
    require("slirp4netns")
    ask = ("--", "nc", "10.0.2.2", str(server))
    done = run(home, "--network", LOOPBACK, busybox_image, *ask, as_root=as_root)
    assert (done.returncode, done.stdout) == (0, "the host\n"), done.stderr
    done = run(home, "--network", "slirp4netns", busybox_image, *ask, as_root=as_root)
    assert done.returncode != 0
    assert done.stdout == ""


def test_pasta_reaches_the_hosts_loopback_only_where_that_is_allowed(
    home: Path, busybox_image: str, server: int
) -> None:
    require("pasta")
    if not default_route():
        pytest.skip("this machine has no default route, whose interface pasta would take as its model")
    # Some versions of pasta do not pass the end of a stream on.
    nc = f"timeout 3 nc $(ip route | grep default | cut -d' ' -f3) {server} | head -n 1"
    ask = (busybox_image, "--", "sh", "-c", nc)
    done = run(home, "--network", "pasta:--map-gw", *ask)
    assert done.stdout == "the host\n", done.stderr
    assert run(home, "--network", "pasta:-4", *ask).stdout == ""


def test_pasta_passes_a_port_on_where_that_is_asked_for(home: Path, busybox_image: str) -> None:
    require("pasta")
    if not default_route():
        pytest.skip("this machine has no default route, whose interface pasta would take as its model")
    with socketserver.TCPServer(("127.0.0.1", 0), Hello) as found:
        port = found.server_address[1]  # free again
    serve = ("--", "sh", "-c", "echo the container | nc -l -p 80")
    words = ("--network", f"pasta:--tcp-ports={port}:80", busybox_image, *serve)
    with subprocess.Popen(command_line(home, *words), env=Ocitool(home).environment, cwd=home) as running:
        assert until(lambda: _received(port)) == b"the container\n"
        assert running.wait(60) == 0


def _received(port: int) -> bytes:
    """What a server on the host's loopback address says at once; nothing where there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(5)
            return connection.recv(100)
    except OSError:
        return b""


def default_route() -> bool:
    """Whether a line of the kernel's routing table has the destination 0.0.0.0."""
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    return any(line.split()[1] == "00000000" for line in lines)


@pytest.mark.parametrize("as_root", [True, False], ids=["root", "ordinary"])
def test_none_has_no_way_out_and_host_is_the_hosts(
    home: Path, busybox_image: str, server: int, *, as_root: bool
) -> None:
    ask = ("--", "nc", "127.0.0.1", str(server))
    for words in ((), ("--network", "none")):
        assert run(home, *words, busybox_image, *ask, as_root=as_root, tun=False).stdout == ""
    done = run(home, "--network", "host", busybox_image, *ask, as_root=as_root, tun=False)
    assert done.stdout == "the host\n", done.stderr


def test_another_runtimes_container_is_connected_too(home: Path, busybox_image: str, server: int) -> None:
    require("slirp4netns", "runc")
    ask = ("--", "nc", "10.0.2.2", str(server))
    done = run(home, "--runtime", "runc", "--network", LOOPBACK, busybox_image, *ask, as_root=True)
    assert (done.returncode, done.stdout) == (0, "the host\n"), done.stderr


def test_the_container_finds_names_in_its_files(home: Path, busybox_image: str) -> None:
    require("slirp4netns")
    show = ("--", "cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
    words = ("--hostname", "box", "--network", "slirp4netns", "--read-only")
    lines = run(home, *words, busybox_image, *show).stdout.splitlines()
    assert "nameserver 10.0.2.3" in lines
    assert "10.0.2.100\tbox" in lines
    assert lines[-1] == "box"
    shown = run(home, "--network", "host", busybox_image, "cat", "/etc/resolv.conf", tun=False).stdout
    assert shown == Path("/etc/resolv.conf").read_text()
    own = home / "hosts"
    own.write_text("my own\n")
    volume = ("-v", f"{own}:/etc/hosts")
    assert run(home, *volume, busybox_image, "cat", "/etc/hosts", tun=False).stdout == "my own\n"


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("bridge", "one of none, host, slirp4netns, pasta"),
        ("none:x", "takes no options"),
        ("slirp4netns:port=1", "is no option of slirp4netns"),
        ("pasta:x", "is no option of pasta"),
    ],
)
def test_a_network_that_there_is_not_is_refused(
    ocitool: Ocitool, network: str, said: str, busybox_image: str
) -> None:
    assert said in ocitool("run", "--network", network, busybox_image, "true", code=125).err


def test_what_is_missing_for_a_network_is_told(home: Path, busybox_image: str) -> None:
    require("slirp4netns")
    if Path("/dev/net/tun").stat().st_mode & 0o006 == 0o006:
        pytest.skip("everybody may open /dev/net/tun on this machine")
    done = run(home, "--network", "slirp4netns", busybox_image, "true", tun=False)
    assert done.returncode == 125
    assert "may not be opened by this user" in done.stderr


def test_the_helper_of_a_container_whose_owners_were_killed_is_taken_away(
    home: Path, busybox_image: str
) -> None:
    require("slirp4netns")
    environment = Ocitool(home).environment
    command = command_line(home, "--network", "slirp4netns", busybox_image, "--", "sleep", "60", as_root=True)
    started = subprocess.Popen(command, env=environment, cwd=home, process_group=0)
    until(lambda: programs_of(home, "slirp4netns", "pasta"))
    (name,) = (path.name for path in (home / "containers").iterdir())
    record = Path("/run/ocitool", name, "state.json")
    until(lambda: "helpers" in json.loads(record.read_text()))  # from then on others know of it
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    subprocess.run([sys.executable, "-m", "ocitool.run", "delete", "--force", name], check=True)
    run(home, busybox_image, "true", as_root=True, tun=False)
