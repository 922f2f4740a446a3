"""The main job on real parts: real registries, a real image made by others, other tools as judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.command import Ocitool
from support.fixtures import digests, layout
from support.ordinary import NOBODY
from support.peers import call, require, require_root
from support.registry_process import PASSWORD, USER
from support.run_bundles import NO_NEW_MOUNTS, OURS
from support.unpack_trees import differences, tree

from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories
from ocitool.serve import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.registry, pytest.mark.peers]

HOST = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@pytest.fixture(scope="module")
def debian(open_registry: str, debian_layout: Path) -> str:
    """A real image in a real registry, put there by another tool."""
    reference = f"{open_registry}/debian:12"
    call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{debian_layout}:12", f"docker://{reference}")
    return reference


@pytest.fixture(scope="module")
def fixtures() -> Iterator[str]:
    """The embedded registry with the fixture images."""
    with Server(LayoutRepositories(LayoutStore(layout(), create=False))) as server:
        yield server.address


@pytest.fixture(scope="module")
def pulled(debian: str, tmp_path_factory: pytest.TempPathFactory) -> Ocitool:
    """A command line whose store has the real image."""
    ocitool = Ocitool(tmp_path_factory.mktemp("pulled"))
    ocitool("pull", debian)
    return ocitool


def digest_of(image: str) -> str:
    found: str = json.loads(call("skopeo", "inspect", "--tls-verify=false", image))["Digest"]
    return found


def test_a_pull_gives_a_layout_that_other_tools_read(ocitool: Ocitool, debian: str, tmp_path: Path) -> None:
    require("skopeo", "umoci", "buildah")
    digest = ocitool("pull", debian, f"oci:{tmp_path}/layout").result
    assert digest_of(f"oci:{tmp_path}/layout:12") == digest
    assert call("umoci", "ls", "--layout", tmp_path / "layout").split() == ["12"]


def test_a_second_pull_moves_no_blob(ocitool: Ocitool, debian: str) -> None:
    first = ocitool("pull", debian)
    second = ocitool("pull", debian)
    assert first.out == second.out
    assert "copied" in first.err
    assert second.err == "3 there already\n"


def test_a_push_is_read_back_by_other_tools_with_the_same_digest(
    ocitool: Ocitool, debian: str, open_registry: str, tmp_path: Path
) -> None:
    digest = ocitool("pull", debian, f"oci:{tmp_path}/layout").result
    target = f"{open_registry}/again/debian:12"
    assert ocitool("push", f"oci:{tmp_path}/layout:12", target).result == digest
    assert digest_of(f"docker://{target}") == digest
    call("skopeo", "copy", "--src-tls-verify=false", f"docker://{target}", f"oci:{tmp_path}/back:12")
    assert digest_of(f"oci:{tmp_path}/back:12") == digest


def test_a_pulled_image_is_pushed_from_the_local_store_by_its_name(
    ocitool: Ocitool, debian: str, open_registry: str
) -> None:
    digest = ocitool("pull", debian).result
    assert ocitool("push", debian, f"{open_registry}/once/more:12").result == digest
    assert digest_of(f"docker://{open_registry}/once/more:12") == digest


def test_a_password_is_needed_and_used_and_never_shown(
    ocitool: Ocitool, guarded: str, debian_layout: Path, tmp_path: Path
) -> None:
    image, target = f"oci:{debian_layout}:12", f"{guarded}/debian:12"
    given = ("--username", USER, "--password-stdin")
    refused = ocitool("push", image, target, code=11)
    wrong = ocitool("push", *given, image, target, stdin="wrong-password", code=11)
    pushed = ocitool("push", *given, image, target, stdin=PASSWORD + "\n")
    pulled = ocitool("pull", *given, target, f"oci:{tmp_path}/one", stdin=PASSWORD)
    login = ocitool("login", *given, guarded, stdin=PASSWORD)
    kept = ocitool("--debug", "pull", target, f"oci:{tmp_path}/two")
    ocitool("logout", guarded)
    ocitool("pull", target, f"oci:{tmp_path}/three", code=11)
    assert pushed.result == pulled.result == kept.result == digest_of(image)
    assert guarded in refused.err
    said = "".join(done.out + done.err for done in (refused, wrong, pushed, pulled, login, kept))
    assert PASSWORD not in said
    assert "wrong-password" not in said


def test_a_platform_is_chosen_from_a_fat_index(ocitool: Ocitool, fixtures: str, tmp_path: Path) -> None:
    reference = f"{fixtures}/hello:1.0"
    entries = json.loads(ocitool("manifest", reference).out)["manifests"]
    digest = {entry["platform"]["architecture"]: entry["digest"] for entry in entries}
    assert ocitool("pull", reference, f"oci:{tmp_path}/host").result == digest[HOST]
    for name in ("amd64", "arm64"):
        chosen = ocitool("pull", "--platform", f"linux/{name}", reference, f"oci:{tmp_path}/{name}")
        assert chosen.result == digest[name]
    everything = ocitool("pull", "--all", reference, f"oci:{tmp_path}/all")
    assert everything.result == digests()["hello:1.0"]
    absent = ocitool("pull", "--platform", "linux/s390x", reference, code=10)
    assert "linux/s390x" in absent.err
    assert "linux/amd64, linux/arm64" in absent.err
    assert absent.out == ""


def test_a_fat_index_goes_to_a_real_registry_and_back(
    ocitool: Ocitool, fixtures: str, open_registry: str, tmp_path: Path
) -> None:
    digest = ocitool("copy", f"{fixtures}/hello:1.0", f"{open_registry}/hello:1.0").result
    assert digest == digests()["hello:1.0"]
    back = ocitool("copy", f"{open_registry}/hello:1.0", f"oci-archive:{tmp_path}/hello.tar:1.0").result
    assert back == digest
    raw = call("skopeo", "inspect", "--raw", f"oci-archive:{tmp_path}/hello.tar:1.0")
    assert len(json.loads(raw)["manifests"]) == 2


def test_an_unpacked_image_is_what_another_tool_unpacks(
    ocitool: Ocitool, debian: str, debian_layout: Path, tmp_path: Path
) -> None:
    require_root()
    require("umoci")
    ocitool("unpack", debian, tmp_path / "ours")
    call("umoci", "unpack", "--image", f"{debian_layout}:12", tmp_path / "theirs")
    ours, theirs = tree(tmp_path / "ours" / "rootfs"), tree(tmp_path / "theirs" / "rootfs")
    assert len(ours) > 8_000
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_another_runtime_runs_the_bundle_unchanged(
    ocitool: Ocitool, fixtures: str, tmp_path: Path, runtime: str
) -> None:
    require_root()
    require(runtime)
    ocitool("unpack", f"{fixtures}/hello:1.0", tmp_path / "bundle")
    # crun refuses a host with both versions of cgroups, so it gets a view of the mounts without the second.
    hidden = "umount /sys/fs/cgroup/unified 2>/dev/null; exec " if runtime == "crun" else "exec "
    command = f"{hidden}{runtime} run --bundle {tmp_path}/bundle ocitool-{OURS}"
    assert "Hello" in call("unshare", "--mount", "sh", "-c", command)


def test_run_gives_the_containers_own_exit_code_and_passes_its_streams(pulled: Ocitool, debian: str) -> None:
    pulled("run", debian, "--", "sh", "-c", "exit 7", code=7)
    passed = pulled("run", "-i", debian, "--", "sh", "-c", "cat; echo aside >&2", stdin="what goes in")
    assert passed.out == "what goes in"
    assert passed.err == "aside\n"
    pulled("run", debian, "not-a-program", code=127)
    pulled("run", debian, "/etc/passwd", code=126)


def test_a_container_has_namespaces_limits_and_mounts_of_its_own(pulled: Ocitool, debian: str) -> None:
    names = ("mnt", "pid", "ipc", "uts", "net")
    show = "; ".join(f"readlink /proc/self/ns/{name}" for name in names)
    inside = pulled("run", debian, "--", "sh", "-c", show).out.split()
    outside = [str(Path("/proc/self/ns", name).readlink()) for name in names]
    assert not set(inside) & set(outside)
    security = ("--security-opt", "no-new-privileges")
    status = pulled("run", *security, debian, "--", "cat", "/proc/self/status").out
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert fields["CapInh"] == fields["CapAmb"] == "0" * 16
    assert fields["CapBnd"] == fields["CapPrm"] == fields["CapEff"] == "00000000a80425fb"
    mounts = pulled("run", debian, "--", "cat", "/proc/mounts").out
    kinds = {line.split()[1]: line.split()[2] for line in mounts.splitlines()}
    assert kinds["/proc"] == "proc"
    assert kinds["/dev"] == "tmpfs"
    assert kinds["/sys"] == "sysfs"
    assert kinds["/dev/pts"] == "devpts"


def test_the_images_environment_user_and_directory_are_the_programs(pulled: Ocitool, debian: str) -> None:
    command = ("--env", "GREETING=hello", "--workdir", "/tmp", "--user", "daemon", "--hostname", "box")
    said = pulled("run", *command, debian, "--", "sh", "-c", "echo $GREETING $(pwd) $(id -un) $(hostname)")
    assert said.result == "hello /tmp daemon box"


def test_nothing_is_left_of_a_container(ocitool: Ocitool, fixtures: str) -> None:
    require_root()
    command = (*NO_NEW_MOUNTS, sys.executable, "-m", "ocitool", "run", f"{fixtures}/hello:1.0")
    assert "Hello" in call(*command, env=ocitool.environment)
    assert not list((ocitool.home / "containers").iterdir())


def test_an_ordinary_user_pulls_unpacks_and_runs(fixtures: str) -> None:
    """In a process that is `nobody`: with a user namespace, and without any privilege on the host."""
    require_root()
    home = Path(tempfile.mkdtemp())  # below no directory of pytest's, which only root may enter
    os.chown(home, NOBODY, NOBODY)
    ordinary = Ocitool(home, ordinary=True)
    try:
        reference = f"{fixtures}/hello:1.0"
        assert (
            ordinary("pull", reference).result
            == ordinary("digest", "--platform", f"linux/{HOST}", reference).result
        )
        assert "Hello" in ordinary("run", reference).out
        ordinary("run", reference, "exit", "7", code=7)
        ordinary("unpack", reference, home / "bundle")
        assert "Hello" in ordinary("run", home / "bundle").out
        assert not list((home / "containers").iterdir())
    finally:
        subprocess.run(["rm", "-rf", home], check=True)
