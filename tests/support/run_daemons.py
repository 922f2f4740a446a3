"""containerd and dockerd with everything of theirs in one directory, and with this runtime."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.run_bundles import OURS
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTAINERD = """\
version = 2
root = "{base}/containerd/root"
state = "{base}/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{base}/containerd.sock"
"""


class Engine:
    """The client of an engine.

    Attributes:
        command: how it is called.
        runtime: the options of `run` that choose this runtime.
    """

    def __init__(self, command: list[str], runtime: list[str]) -> None:
        self.command = command
        self.runtime = runtime

    def call(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run one command of the client to its end."""
        done = subprocess.run(
            [*self.command, *words], capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done


@contextmanager
def containerd(base: Path, script: Path) -> Iterator[Engine]:
    """containerd, called through `ctr`."""
    (base / "containerd.toml").write_text(CONTAINERD.format(base=base))
    engine = Engine(
        ["ctr", "--address", f"{base}/containerd.sock", "--namespace", OURS],
        ["--snapshotter", "native", "--runc-binary", str(script)],
    )
    command = ["containerd", "--config", str(base / "containerd.toml")]
    with _running(base, command, [*engine.command, "version"]):
        yield engine


@contextmanager
def dockerd(base: Path, script: Path, *, cgroups: str = "cgroupfs") -> Iterator[Engine]:
    """dockerd on a containerd of its own, without a network; `cgroups` says who makes them, or "systemd"."""
    parent = f"ocitool{OURS.replace('-', '')}.slice" if cgroups == "systemd" else f"/ocitool-{OURS}-docker"
    socket = f"unix://{base}/docker.sock"
    command = [
        "dockerd", "--host", socket, "--containerd", f"{base}/containerd.sock",
        "--pidfile", f"{base}/docker.pid", "--data-root", f"{base}/docker",
        "--exec-root", f"{base}/docker-run", "--config-file", f"{base}/none",
        "--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs",
        "--cgroup-parent", parent, "--exec-opt", f"native.cgroupdriver={cgroups}",
        "--add-runtime", f"ocitool={script}",
    ]  # fmt: skip
    (base / "none").write_text("{}")
    engine = Engine(["docker", "--host", socket], ["--runtime", "ocitool", "--network", "none"])
    with containerd(base, script), _running(base, command, [*engine.command, "version"]):
        yield engine


@contextmanager
def _running(base: Path, command: list[str], answers: list[str]) -> Iterator[None]:
    """A daemon, from when it answers until it has ended."""
    log = base / f"{command[0]}.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            until(
                lambda: (
                    process.poll() is not None
                    or not subprocess.run(answers, capture_output=True, check=False, timeout=60).returncode
                )
            )
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(60)
