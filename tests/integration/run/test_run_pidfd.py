"""`--pidfd-socket`: an engine gets a descriptor of the container's process, as runc sends it."""

from __future__ import annotations

import array
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.run_bundles import OURS, Bundle, Containers

pytestmark = pytest.mark.root


@pytest.fixture
def engine(workplace: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(workplace / "pidfd"))
        listening.listen()
        listening.settimeout(60)
        yield listening


def _received(engine: socket.socket) -> tuple[bytes, int]:
    connection, _ = engine.accept()
    with connection:
        payload, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(8))
        rest = connection.recv(1)
    ((level, kind, data),) = ancillary
    assert (level, kind, rest) == (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")
    descriptors = array.array("i", data)
    assert len(descriptors) == 1
    return payload, descriptors[0]


def _process_of(pidfd: int) -> int:
    info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return next(int(line.split()[1]) for line in info.splitlines() if line.startswith("Pid:"))


def _option(engine: socket.socket) -> tuple[str, str]:
    return "--pidfd-socket", engine.getsockname()


@pytest.mark.parametrize("command", ["create", "run"])
def test_the_first_process_is_sent_and_can_be_waited_for(
    containers: Containers, bundle: Bundle, engine: socket.socket, command: str
) -> None:
    bundle.shell("sleep 60")
    detach = ("--detach",) * (command == "run")
    words = (command, "--bundle", str(bundle.path), *_option(engine), *detach, f"{OURS}-pidfd")
    assert containers.call(*words).returncode == 0
    payload, pidfd = _received(engine)
    assert payload == b"standard"
    assert _process_of(pidfd) == containers.state(f"{OURS}-pidfd")["pid"]
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0] == [pidfd]
    containers.wait_for(f"{OURS}-pidfd", "stopped")
    os.close(pidfd)


def test_a_further_process_is_sent_by_another_word(
    containers: Containers, bundle: Bundle, engine: socket.socket, workplace: Path
) -> None:
    first = containers.started(bundle.shell("sleep 60"), f"{OURS}-pidfd")
    words = (
        "exec",
        *_option(engine),
        "--detach",
        "--pid-file",
        str(workplace / "pid"),
        f"{OURS}-pidfd",
        "sleep",
        "60",
    )
    assert containers.call(*words).returncode == 0
    payload, pidfd = _received(engine)
    assert payload == b"setns"
    assert _process_of(pidfd) == int((workplace / "pid").read_text()) != first
    os.close(pidfd)


@pytest.mark.parametrize("command", ["create", "run"])
def test_nobody_who_listens_is_an_error_and_leaves_nothing(
    containers: Containers, bundle: Bundle, workplace: Path, command: str
) -> None:
    missing = str(workplace / "missing")
    words = (
        command,
        "--bundle",
        str(bundle.shell("echo ran").path),
        "--pidfd-socket",
        missing,
        f"{OURS}-pidfd",
    )
    done = containers.call(*words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == f"ocitool-runtime: pidfd socket {missing}: No such file or directory\n"
    assert containers.remembered() == []
