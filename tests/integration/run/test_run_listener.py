"""Seccomp's listener: an agent outside of the container answers a call (config-linux.md, "Seccomp")."""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.run_bundles import OURS, Bundle, Containers
from support.waiting import until

pytestmark = pytest.mark.root

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_EDQUOT = 122


class Agent:
    """What listens on `listenerPath`, and answers the first call that it is asked about with EDQUOT.

    Attributes:
        messages: what it was told, one document for each connection.
        asked: (number of the process as the agent sees it, number of the call).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, Any]] = []
        self.asked: list[tuple[int, int]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(64))
                if not data:
                    continue  # of a container that was never started
                assert connection.recv(1) == b"", "the connection is closed after one message"
            ((_, kind, content),) = ancillary
            assert kind == socket.SCM_RIGHTS
            (fd,) = array.array("i", content)
            self.messages.append(json.loads(data))
            self._answer(fd)

    def _answer(self, fd: int) -> None:
        request = bytearray(80)
        fcntl.ioctl(fd, _RECEIVE, request)
        identity, pid, _, number = struct.unpack_from("QIIi", request)
        self.asked.append((pid, number))
        fcntl.ioctl(fd, _SEND, struct.pack("QqiI", identity, 0, -_EDQUOT, 0))
        os.close(fd)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(60)


@pytest.fixture
def agent(workplace: Path) -> Iterator[Agent]:
    found = Agent(workplace / "agent.sock")
    yield found
    found.close()


def watched(bundle: Bundle, agent: Agent, **more: Any) -> Bundle:
    """A bundle whose mkdir(2) is the agent's to decide."""
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(agent.path),
        "listenerMetadata": "what the agent wants to know",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        **more,
    }
    bundle.save()
    return bundle


@pytest.mark.parametrize(
    "flags", [[], ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]]
)
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_outside_answers_a_call(
    containers: Containers, bundle: Bundle, agent: Agent, flags: list[str], *, no_new_privileges: bool
) -> None:
    bundle.config["process"]["noNewPrivileges"] = no_new_privileges
    watched(bundle, agent, flags=flags)
    said = containers.output(bundle, "mkdir /asked 2>&1; exit 0")
    assert "quota" in said.lower()
    (message,) = agent.messages
    assert message["fds"] == ["seccompFd"]
    assert message["metadata"] == "what the agent wants to know"
    assert message["pid"] == message["state"]["pid"] > 1
    assert message["state"]["status"] == "creating"
    assert message["state"]["bundle"] == str(bundle.path)
    assert message["ociVersion"] == message["state"]["ociVersion"]


def test_a_created_container_brings_its_listener_when_it_is_started(
    containers: Containers, bundle: Bundle, agent: Agent
) -> None:
    watched(bundle, agent).shell("mkdir /asked; echo $? >/done; sleep 60")
    pid = containers.started(bundle, f"{OURS}-listener")
    until((bundle.rootfs / "done").exists)
    assert agent.messages[0]["pid"] == pid
    assert agent.messages[0]["state"]["id"] == f"{OURS}-listener"


def test_rn_03_neither_it_nor_its_courier_holds_a_descriptor_of_the_caller_meanwhile(
    containers: Containers, bundle: Bundle, agent: Agent
) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    watched(bundle, agent).shell("mkdir /asked; echo $? >/done; sleep 60")
    words = ["create", "--bundle", str(bundle.path), f"{OURS}-waits"]
    assert containers.call(*words, close_fds=False).returncode == 0
    os.close(writing)
    state = containers.root / f"{OURS}-waits"
    for process in processes(bundle):
        held = [str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir() if int(path.name) > 2]
        named = sorted(name for name in held if name.startswith("/"))
        assert named == ["/proc", f"{state}/err", f"{state}/go"]
        own = sorted(name.partition(":")[0] for name in held if not name.startswith("/"))
        assert own == ["anon_inode", "pipe", "pipe", "socket"]
    # Nobody has the other end any more.
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert containers.call("start", f"{OURS}-waits").returncode == 0
    until((bundle.rootfs / "done").exists)
    assert len(agent.messages) == 1


def test_a_container_that_never_starts_leaves_no_courier(
    containers: Containers, bundle: Bundle, agent: Agent
) -> None:
    watched(bundle, agent)
    assert containers.call("create", "--bundle", str(bundle.path), f"{OURS}-unstarted").returncode == 0
    couriers = processes(bundle)
    assert len(couriers) == 2  # the first process of the container, and its courier
    assert containers.call("delete", "--force", f"{OURS}-unstarted").returncode == 0
    until(lambda: not processes(bundle))
    assert agent.messages == []


def processes(bundle: Bundle) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(bundle.path) in process.read_bytes():
                found.append(process.parent.name)
        except OSError:
            continue
    return found


def test_a_further_process_has_a_listener_of_its_own(
    containers: Containers, bundle: Bundle, agent: Agent
) -> None:
    watched(bundle, agent).shell("mkdir /first; sleep 60")
    containers.started(bundle, f"{OURS}-listener")
    done = containers.call("exec", f"{OURS}-listener", "mkdir", "/second")
    assert done.returncode == 1
    assert "quota" in done.stderr.lower()
    assert [message["state"]["status"] for message in agent.messages] == ["creating", "running"]


def test_an_ordinary_users_container_is_answered_too(
    containers: Containers, ordinary_bundle: Bundle, agent: Agent
) -> None:
    agent.path.chmod(0o777)
    watched(ordinary_bundle, agent)
    said = containers.output(ordinary_bundle, "mkdir /asked 2>&1; exit 0", ordinary=True)
    assert "quota" in said.lower()


def test_nobody_who_listens_is_an_error_and_leaves_nothing(
    containers: Containers, bundle: Bundle, agent: Agent, workplace: Path
) -> None:
    watched(bundle, agent, listenerPath=str(workplace / "nobody.sock"))
    done = containers.run(bundle)
    assert done.returncode != 0
    assert "seccomp listener" in done.stderr
    assert "nobody.sock" in done.stderr


def test_a_profile_that_asks_nobody_ignores_the_path(
    containers: Containers, bundle: Bundle, agent: Agent
) -> None:
    watched(bundle, agent, syscalls=[], listenerPath="/nobody.sock")
    assert containers.output(bundle, "mkdir /made && echo made") == "made\n"
