"""The options of `ocitool run` as docker's users type them, with good values and bad ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Ocitool
from support.fixtures import layout
from support.peers import require

pytestmark = pytest.mark.peers

HELLO = f"oci:{layout()}:hello:1.0"


@pytest.fixture(params=["root", "ordinary"])
def anyone(request: pytest.FixtureRequest, ordinary_home: Path) -> Iterator[Ocitool]:
    """The command line as root, and as an ordinary user to whom no ids are delegated."""
    yield Ocitool(ordinary_home, ordinary=request.param == "ordinary")
    assert list(ordinary_home.glob("containers/*")) == []


def test_the_environment_comes_from_files_and_options(anyone: Ocitool, busybox_image: str) -> None:
    variables = anyone.home / "variables"
    variables.write_text("# a comment\nA=1\n\n  B=two words\nHOME\nNOT_SET\n")
    said = anyone("run", "--env-file", variables, "-e", "A=9", busybox_image, "env").out.splitlines()
    assert {"A=9", "B=two words", f"HOME={anyone.home}"} <= set(said)
    assert not any(line.startswith("NOT_SET") for line in said)
    variables.write_text("A B=1\n")
    assert "has no name" in anyone("run", "--env-file", variables, busybox_image, code=125).err
    assert "can't be read" in anyone("run", "--env-file", "/not/there", busybox_image, code=125).err


def test_mounts_are_docker_s(anyone: Ocitool, busybox_image: str) -> None:
    (anyone.home / "given").mkdir(mode=0o755)
    (anyone.home / "given" / "file").write_text("given\n")
    look = ("--", "sh", "-c", "cat /x/file; touch /x/new 2>&1")
    for words in (("--mount", "type=bind,source=given,target=/x,readonly"), ("-v", "./given:/x:ro")):
        done = anyone("run", *words, busybox_image, *look, code=1)
        assert done.out.splitlines()[0] == "given"
        assert "Read-only" in done.out
    shown = anyone("run", "--tmpfs", "/x:size=1m", busybox_image, "mount").out
    assert "tmpfs on /x type tmpfs (rw,nosuid,nodev,noexec,relatime,size=1024k" in shown


def test_names_need_not_be_utf_8(anyone: Ocitool, busybox_image: str) -> None:
    odd = os.fsdecode(b"\xff")
    (anyone.home / odd).mkdir(mode=0o755)
    (anyone.home / odd / "file").write_text("given\n")
    words = ("-v", f"./{odd}:/x{odd}", "-w", f"/y{odd}", busybox_image, "--", "sh", "-c")
    assert anyone("run", *words, "cat ../x*/file; pwd | wc -c").out.split() == ["given", "4"]
    bundle = anyone.home / "open" / odd
    bundle.parent.mkdir(mode=0o777)
    bundle.parent.chmod(0o777)
    anyone("--quiet", "unpack", busybox_image, bundle)
    assert anyone("run", bundle, "echo", "ran").out == "ran\n"
    told = anyone("run", "--store", bundle.parent / odd / "store", busybox_image, "true", code=125).err
    assert "the path is not UTF-8" in told


def test_a_working_directory_that_is_missing_is_made(anyone: Ocitool, busybox_image: str) -> None:
    assert anyone("run", "-w", "/not/there", busybox_image, "pwd").out == "/not/there\n"
    assert anyone("run", "--read-only", "-w", "/not/there", busybox_image, "pwd").out == "/not/there\n"


def test_init_is_the_first_process_and_passes_the_exit_status_on(anyone: Ocitool, busybox_image: str) -> None:
    require("catatonit")
    shown = anyone("run", "--init", busybox_image, "--", "sh", "-c", "ps; exit 7", code=7).out
    assert "1 root     /dev/init -- sh" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-d",), "there is no daemon"),
        (("-p", "8080:80"), "there is no bridge to publish ports of"),
        (("--hostname", "a/b"), "the host name 'a/b' is not valid"),
        (("--hostname", "a" * 65), "up to 64 letters"),
        (("--hostname", "a", "--uts", "host"), "--hostname and --uts host exclude each other"),
        (("--memory", "1k"), "less memory than a container can start with"),
        (("--memory", "much"), "is not a size"),
        (("--memory-swap", "1g"), "give --memory as well"),
        (("--cpus", "nan"), "is not a number of CPUs"),
        (("--cpus", "0.001"), "fewer than the kernel can give"),
        (("--ulimit", "files=1"), "'files' is not one of core, cpu"),
        (("--oom-score-adj", "1001"), "goes from -1000 to 1000"),
        (("--cap-add", "ALMIGHTY"), "is not a capability"),
        (("--workdir", "relative"), "is not an absolute path"),
        (("--volume", "data:/x"), "that an engine keeps by name"),
        (("--mount", "type=volume,source=data,target=/x"), "that an engine keeps by name"),
        (("--mount", "type=image,target=/x"), "the type image is not supported"),
        (("--device", "/dev/not-there"), "device /dev/not-there: No such file"),
        (("--device", "/etc"), "there is no device"),
        (("--sysctl", "kernel.panic=1"), "is not of a namespace, so it would change the host"),
        (("--security-opt", "odd"), "security option 'odd' is not supported"),
        (("--add-host", "db:host-gateway"), "there is no bridge"),
        (("--add-host", "db"), "'' is no address"),
        (("--dns", "ns.example.org"), "'ns.example.org' is no address"),
        (("--user", "not-there"), "there is no user 'not-there'"),
        (("--group-add", "not-there"), "there is no group 'not-there'"),
        (("--runtime", "crun", "--isolation", "chroot"), "leave out --runtime"),
        (("--privileged", "--isolation", "chroot"), "leave out --privileged"),
        (("--rm", "--keep"), "exclude each other"),
        (("--nonsense",), "No such option"),
    ],
)
def test_what_keeps_the_program_from_being_tried_is_told_with_125(
    ocitool: Ocitool, words: tuple[str, ...], said: str
) -> None:
    assert said in ocitool("run", *words, HELLO, code=125).err


def test_a_volume_without_a_source_begins_as_the_image_and_ends_with_the_container(
    ocitool: Ocitool, busybox_image: str
) -> None:
    """In a read-only root it can be written to, as with podman."""
    volumes = ("-v", "/etc", "-v", "/fresh/volume")
    script = (
        "stat -c '%a %u %g' /etc /fresh/volume; cat /etc/passwd; touch /etc/new /fresh/volume/new /bin/new;"
        " ls /etc/new /fresh/volume"
    )
    before = ocitool("run", busybox_image, "--", "sh", "-c", "stat -c '%a %u %g' /etc; cat /etc/passwd").out
    for _ in range(2):
        done = ocitool("run", "--read-only", *volumes, busybox_image, "--", "sh", "-c", script)
        owner, *accounts = before.splitlines()
        assert done.out.splitlines() == [owner, "755 0 0", *accounts, "/etc/new", "", "/fresh/volume:", "new"]
        assert "touch: /bin/new: Read-only file system" in done.err
    assert "No such file" in ocitool("run", busybox_image, "ls", "/etc/new", code=1).err


def test_a_profile_of_dockers_form_is_in_force(ocitool: Ocitool, busybox_image: str) -> None:
    denied = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}
    unless = {"excludes": {"caps": ["CAP_SYS_ADMIN"]}}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "archMap": [], "syscalls": [{**denied, **unless}]}
    (ocitool.home / "profile.json").write_text(json.dumps(profile))
    command = ("run", "--security-opt", "seccomp=profile.json", busybox_image, "mkdir", "/x")
    assert "Disk quota exceeded" in ocitool(*command, code=1).err
    ocitool("run", "--cap-add", "SYS_ADMIN", *command[1:])
    assert (
        "profile.json does not exist"
        in ocitool("run", *command[1:2], "seccomp=no/profile.json", HELLO, code=125).err
    )


@pytest.mark.parametrize("pids", ["0", "-1"])
def test_no_limit_can_be_asked_for_by_everybody(anyone: Ocitool, busybox_image: str, pids: str) -> None:
    anyone("run", "--memory", "0", "--cpus", "0", "--pids-limit", pids, busybox_image, "true")


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
    reason="needs root, and cgroup version 1 with a count of swap",
)
def test_a_limit_of_memory_is_one_of_as_much_swap(ocitool: Ocitool, busybox_image: str) -> None:
    files = [f"/sys/fs/cgroup/memory/memory.{name}limit_in_bytes" for name in ("", "memsw.")]
    shown = ocitool("run", "--memory", "64m", busybox_image, "cat", *files).out.split()
    assert shown == [str(64 << 20), str(128 << 20)]


def test_a_program_for_another_processor_says_what_is_missing(ocitool: Ocitool) -> None:
    other = {"x86_64": "arm64", "aarch64": "amd64"}[os.uname().machine]
    told = ocitool("run", "--platform", f"linux/{other}", HELLO, code=126).err
    assert f"the image is for linux/{other}" in told
    assert "binfmt_misc" in told


# What a kernel from 6.7 on lets a user namespace have for itself.
REGISTER = r"""
mkdir -p "$1/binfmt"
mount -t binfmt_misc none "$1/binfmt"
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":ocitool-test:M::$magic:$mask:/usr/bin/qemu-aarch64-static:F" >"$1/binfmt/register"
shift
exec unshare --user --map-user=1000 --map-group=1000 "$@"
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="arm64 is this machine's own architecture")
def test_a_program_for_another_processor_runs_where_an_interpreter_is_registered(ocitool: Ocitool) -> None:
    require("qemu-aarch64-static")
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        pytest.skip("before Linux 6.7, interpreters are registered for the whole machine or not at all")
    run = [sys.executable, "-m", "ocitool", "run", "--platform", "linux/arm64", HELLO]
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", REGISTER, "sh"]
    done = subprocess.run(
        [*inside, str(ocitool.home), *run],
        env=ocitool.environment, cwd=ocitool.home, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Hello" in done.stdout, done.stderr
