"""What docker's options do to a real container: names, devices, limits, namespaces and privileges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Ocitool
from support.peers import call, require, require_root
from support.run_bundles import VERSION_2_ALONE

from ocitool.run.capabilities import NAMES

pytestmark = pytest.mark.peers
HOST_UTS = Path("/proc/self/ns/uts").readlink()


@pytest.fixture(params=["root", "ordinary"])
def anyone(request: pytest.FixtureRequest, ordinary_home: Path) -> Ocitool:
    """The command line as root, and as an ordinary user to whom no ids are delegated."""
    return Ocitool(ordinary_home, ordinary=request.param == "ordinary")


@pytest.fixture
def volumes_image(tmp_path: Path, busybox_image: str) -> str:
    """That of busybox with volumes: one that has a file, one that is empty, one that is nowhere."""
    require("umoci")
    layout = tmp_path / "image"
    call("cp", "-r", busybox_image.removeprefix("oci:").rpartition(":")[0], layout)
    paths = ["/etc", "/tmp", "/not/there"]
    call("umoci", "config", "--image", f"{layout}:1", *(f"--config.volume={path}" for path in paths))
    return f"oci:{layout}:1"


def _said(ocitool: Ocitool, *words: str, script: str) -> list[str]:
    """What a script prints in two containers, of which the second one starts without loading much."""
    run = ("run", *words, "--", "sh", "-c", script)
    first = ocitool(*run).out
    assert ocitool(*run).out == first
    return first.splitlines()


def test_a_container_knows_its_name_and_the_hosts_that_it_is_told(
    anyone: Ocitool, busybox_image: str
) -> None:
    words = (
        "-h",
        "box",
        "--domainname",
        "example.org",
        "--add-host",
        "db:192.0.2.9",
        "--add-host",
        "six=[::2]",
    )
    # Some shells set HOSTNAME themselves.
    variable = "tr '\\0' '\\n' </proc/1/environ | grep ^HOSTNAME"
    script = f"hostname; cat /proc/sys/kernel/domainname; {variable}; tail -n +3 /etc/hosts"
    assert _said(anyone, *words, busybox_image, script=script) == [
        "box", "example.org", "HOSTNAME=box", "127.0.1.1\tbox.example.org box", "192.0.2.9\tdb", "::2\tsix",
    ]  # fmt: skip


def test_a_container_in_the_hosts_network_has_its_name(anyone: Ocitool, busybox_image: str) -> None:
    own = os.uname().nodename
    # Not the namespace itself, which differs from one container to the next.
    script = f"hostname; cat /etc/hostname; test $(readlink /proc/self/ns/uts) != {HOST_UTS} && echo its own"
    assert _said(anyone, "--network", "host", busybox_image, script=script) == [own, own, "its own"]
    assert _said(anyone, "--net=host", "-h", "box", busybox_image, script="hostname") == ["box"]


def test_name_servers_are_those_that_are_given(anyone: Ocitool, busybox_image: str) -> None:
    words = (
        "--dns",
        "192.0.2.7",
        "--dns-search",
        "example.org",
        "--dns-option",
        "ndots:2",
        "--network",
        "host",
    )
    said = _said(anyone, *words, busybox_image, script="cat /etc/resolv.conf")
    assert said[-3:] == ["nameserver 192.0.2.7", "search example.org", "options ndots:2"]
    assert [line for line in said if line.startswith("nameserver")] == ["nameserver 192.0.2.7"]


def test_flags_may_have_a_value(anyone: Ocitool, busybox_image: str) -> None:
    words = ("--rm=true", "-i=true", "-t", "--tty=false", "--privileged=0", busybox_image)
    script = "test -t 1 || echo no terminal; grep ^Seccomp: /proc/self/status"
    assert _said(anyone, *words, script=script) == ["no terminal", "Seccomp:\t2"]
    assert "does not take a value" in anyone("run", "--rm=maybe", busybox_image, code=125).err


def test_a_bundle_is_run_with_what_its_maker_has_decided(ocitool: Ocitool, busybox_image: str) -> None:
    bundle = ocitool.home / "bundle"
    ocitool("unpack", busybox_image, bundle)
    for option, value, said in (
        ("--add-host", "db:192.0.2.9", "--add-host is for images"),
        ("--dns", "192.0.2.9", "--dns is for images"),
        ("--group-add", "alice", "--group-add takes numbers"),
    ):
        assert said in ocitool("run", option, value, bundle, "true", code=125).err
    script = "id -G; grep NoNewPrivs /proc/self/status; hostname; grep -c HOSTNAME= /proc/1/environ; true"
    words = ("--group-add", "4321", "--network", "host")
    assert _said(ocitool, *words, str(bundle), script=script) == ["0 4321", "NoNewPrivs:\t1", "ocitool", "0"]


def test_limits_of_a_process(anyone: Ocitool, busybox_image: str) -> None:
    words = ("--ulimit", "nofile=64:128", "--ulimit", "core=0", "--oom-score-adj", "500", "--shm-size", "1m")
    script = (
        "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; df -k /dev/shm | awk 'END{print $2}'"
    )
    assert _said(anyone, *words, busybox_image, script=script) == ["64", "128", "0", "500", "1024"]


def test_parameters_of_the_kernel_that_are_the_containers_own(anyone: Ocitool, busybox_image: str) -> None:
    words = ("--sysctl", "net.ipv4.ip_default_ttl=77", "--sysctl", "kernel.msgmax=9000")
    script = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax"
    assert _said(anyone, *words, busybox_image, script=script) == ["77", "9000"]
    told = anyone("run", *words[:2], "--network", "host", busybox_image, "true", code=125).err
    assert "needs a network namespace" in told


def test_groups_are_of_the_image(ocitool: Ocitool, busybox_image: str) -> None:
    words = ("-u", "alice", "--group-add", "alice", "--group-add", "4321")
    assert _said(ocitool, *words, busybox_image, script="id -G") == ["1234 4321"]
    look = "grep ^Groups: /proc/self/status"
    assert _said(ocitool, "-u", "5:6", busybox_image, script=look)[0].split() == ["Groups:", "6"]


@pytest.mark.root
def test_a_device_is_there_with_the_access_that_is_given(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    words = ("--device", "/dev/zero:/dev/given/x:r", "--device", "/dev/kmsg:/dev/given/log:w")
    script = (
        "stat -c '%t:%T' /dev/given/x /dev/given/log; head -c 3 /dev/given/x | wc -c;"
        " head -c 1 /dev/given/log 2>&1; ls /dev/kmsg 2>&1; true"
    )
    said = _said(ocitool, *words, busybox_image, script=script)
    assert said[:3] == ["1:5", "1:b", "3"]
    assert "Operation not permitted" in said[3]
    assert "No such file" in said[4]


def test_an_ordinary_users_device_is_the_hosts_own(anyone: Ocitool, busybox_image: str) -> None:
    script = "stat -c '%t:%T' /dev/given; head -c 3 /dev/given | wc -c"
    assert _said(anyone, "--device", "/dev/zero:/dev/given", busybox_image, script=script) == ["1:5", "3"]


PRIVILEGED = """grep -E '^(CapEff|Seccomp):' /proc/self/status | tr -d '\\t'
mount -t tmpfs none /tmp && echo mounted
test -w /proc/sys/kernel/msgmax && head -c 1 /proc/keys | wc -c
grep -cE ' /sys(/fs/cgroup)? .* ro,' /proc/mounts
"""


def test_a_privileged_container_has_what_the_caller_may_give(anyone: Ocitool, busybox_image: str) -> None:
    every = (1 << len(NAMES)) - 1
    if not anyone.ordinary:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        every = int(status.partition("CapBnd:")[2].split()[0], 16)
    done = anyone("run", "--privileged", busybox_image, "--", "sh", "-c", PRIVILEGED, code=None)
    assert done.out.splitlines()[:4] == [f"CapEff:{every:016x}", "Seccomp:0", "mounted", "1"]
    assert done.out.splitlines()[4:] == ["0"]
    assert done.err == ""
    plain = anyone("run", busybox_image, "--", "sh", "-c", PRIVILEGED, code=None)
    assert "mounted" not in plain.out


def test_a_privileged_container_has_the_hosts_devices(anyone: Ocitool, busybox_image: str) -> None:
    here = {path for path in ("/dev/kmsg", "/dev/fuse", "/dev/net/tun", "/dev/loop0") if Path(path).exists()}
    assert here
    said = _said(anyone, "--privileged", busybox_image, script="find /dev -type c -o -type b")
    assert here <= set(said)
    if not anyone.ordinary and Path("/dev/kmsg").exists():
        assert _said(anyone, "--privileged", busybox_image, script="head -c 1 /dev/kmsg | wc -c") == ["1"]


@pytest.mark.parametrize("kind", ["cgroup", "ipc", "pid", "uts"])
def test_a_namespace_is_the_hosts_where_that_is_asked_for(
    anyone: Ocitool, busybox_image: str, kind: str
) -> None:
    option = {"cgroup": "--cgroupns"}.get(kind, f"--{kind}")
    look = f"readlink /proc/self/ns/{kind}"
    own = str(Path(f"/proc/self/ns/{kind}").readlink())
    assert _said(anyone, option, "host", busybox_image, script=look) == [own]
    done = anyone("run", option, "private", busybox_image, "--", "sh", "-c", look)
    assert done.out != f"{own}\n"


def test_shared_memory_of_the_host_is_seen_with_its_ipc_namespace(
    anyone: Ocitool, busybox_image: str
) -> None:
    shared = Path(f"/dev/shm/ocitool-test-{os.getpid()}")
    shared.write_text("shared\n")
    shared.chmod(0o644)
    try:
        said = _said(anyone, "--ipc", "host", busybox_image, script=f"cat {shared}; ls -d /dev/shm")
    finally:
        shared.unlink()
    assert said == ["shared", "/dev/shm"]


def test_a_container_sees_cgroups_from_its_own_on_and_changes_none(
    anyone: Ocitool, busybox_image: str
) -> None:
    script = "cut -d: -f3 /proc/self/cgroup | sort -u; cd /sys/fs/cgroup; mkdir new 2>&1; true"
    own, refused = _said(anyone, busybox_image, script=script)
    assert own == "/"
    assert "Read-only file system" in refused


@pytest.mark.skipif(VERSION_2_ALONE, reason="reads the files of cgroup version 1")
def test_everybody_sees_limits_in_the_cgroup_mount(anyone: Ocitool, busybox_image: str) -> None:
    script = "ls /sys/fs/cgroup/memory/memory.limit_in_bytes; mkdir /sys/fs/cgroup/memory/new 2>&1; true"
    limit, refused = _said(anyone, busybox_image, script=script)
    assert limit == "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert "Read-only file system" in refused


@pytest.mark.root
@pytest.mark.skipif(VERSION_2_ALONE, reason="reads the files of cgroup version 1")
def test_shares_of_memory_and_processors(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    words = (
        "-m",
        "64m",
        "--memory-reservation",
        "32m",
        "-c",
        "512",
        "--cpuset-cpus",
        "0",
        "--cpu-quota",
        "20000",
    )
    files = "memory/memory.soft_limit_in_bytes cpu/cpu.shares cpuset/cpuset.cpus cpu/cpu.cfs_quota_us"
    said = _said(ocitool, *words, busybox_image, script=f"cd /sys/fs/cgroup; cat {files}")
    assert said == [str(32 << 20), "512", "0", "20000"]


def test_a_program_has_the_umask_and_the_machine_that_are_given(anyone: Ocitool, busybox_image: str) -> None:
    words = ("--umask", "0137", "--personality", "LINUX32", busybox_image)
    machine = subprocess.run(
        ["setarch", "linux32", "uname", "-m"], capture_output=True, text=True, check=True
    )
    assert _said(anyone, *words, script="umask; uname -m") == ["0137", machine.stdout.strip()]


def test_a_container_can_be_without_shared_memory(anyone: Ocitool, busybox_image: str) -> None:
    look = "readlink /proc/self/ns/ipc; ls -d /dev/shm 2>&1; true"
    own = str(Path("/proc/self/ns/ipc").readlink())
    for kind, shown in (("none", "No such file"), ("shareable", "/dev/shm")):
        done = anyone("run", "--ipc", kind, busybox_image, "--", "sh", "-c", look)
        space, memory = done.out.splitlines()
        assert space != own
        assert shown in memory


@pytest.mark.root
def test_a_cgroup_is_made_where_that_is_asked_for(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    parent = f"ocitool-test-{os.getpid()}"
    words = ("--cgroupns", "host", "--name", "box", "--cgroup-parent", f"/{parent}/below", busybox_image)
    done = ocitool("run", *words, "cat", "/proc/self/cgroup")
    assert f":/{parent}/below/box" in done.out
    assert list(Path("/sys/fs/cgroup").glob(f"**/{parent}")) == []


@pytest.mark.root
def test_devices_that_are_not_there_yet_are_allowed_by_a_rule(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    script = "mknod /dev/log c 1 11 && (: >/dev/log) 2>&1; true"
    assert "not permitted" in _said(ocitool, busybox_image, script=script)[0]
    assert _said(ocitool, "--device-cgroup-rule", "c 1:11 w", busybox_image, script=script) == []


@pytest.mark.root
@pytest.mark.skipif(VERSION_2_ALONE, reason="reads the files of cgroup version 1")
def test_disks_and_scarce_memory(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    disk = next(path for path in Path("/dev").iterdir() if path.is_block_device())
    words = ("--device-read-bps", f"{disk}:1mb", "--memory-swappiness", "10", "--oom-kill-disable")
    files = "blkio/blkio.throttle.read_bps_device memory/memory.swappiness memory/memory.oom_control"
    said = _said(ocitool, *words, busybox_image, script=f"cd /sys/fs/cgroup; cat {files}")
    number = disk.stat().st_rdev
    assert said[:3] == [f"{os.major(number)}:{os.minor(number)} {1 << 20}", "10", "oom_kill_disable 1"]


@pytest.mark.root
@pytest.mark.skipif(not VERSION_2_ALONE, reason="needs cgroup version 2")
def test_files_of_the_cgroup_are_written(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    words = ("--cgroup-conf", "memory.high=64M", "--cgroup-conf", "pids.max=77", busybox_image)
    said = _said(ocitool, *words, script="cd /sys/fs/cgroup; cat memory.high pids.max")
    assert said == [str(64 << 20), "77"]


def test_labels_are_annotations(ocitool: Ocitool, busybox_image: str) -> None:
    words = ("--keep", "--name", "labelled", "-l", "a=b=c", "--label", "d", "--annotation", "e=f")
    ocitool("run", *words, busybox_image, "true")
    config = json.loads((ocitool.home / "containers/labelled/config.json").read_text(encoding="utf-8"))
    assert {"a": "b=c", "d": "", "e": "f"}.items() <= config["annotations"].items()


@pytest.mark.parametrize("how", [(), ("--runtime", "runc")])
def test_volumes_of_the_image_are_writable_in_a_read_only_root(
    ocitool: Ocitool, volumes_image: str, how: tuple[str, ...]
) -> None:
    if how:
        require("runc")
    script = (
        "for d in /etc /tmp /not/there /bin; do touch $d/new && echo $d; done 2>&1; grep -c alice /etc/passwd"
    )
    said = _said(ocitool, "--read-only", *how, volumes_image, script=script)
    assert said == ["/etc", "/tmp", "/not/there", "touch: /bin/new: Read-only file system", "1"]
    (ocitool.home / "mine").mkdir()
    script = "ls /etc/passwd; touch /etc/new && echo new"
    done = ocitool("run", "--read-only", "-v", "./mine:/etc", volumes_image, "--", "sh", "-c", script)
    assert done.out == "new\n"
    assert (ocitool.home / "mine/new").exists()


def test_mount_makes_a_volume_without_a_source(anyone: Ocitool, busybox_image: str) -> None:
    script = "grep -c alice /etc/passwd; touch /etc/new && echo new"
    volume = "type=volume,target=/etc"
    assert _said(anyone, "--read-only", "--mount", volume, busybox_image, script=script) == ["1", "new"]
    volume = "target=/etc,volume-nocopy"
    assert _said(anyone, "--mount", volume, busybox_image, script="ls -A /etc") == ["hostname", "hosts"]


@pytest.mark.root
def test_a_setuid_program_gains_privileges_unless_that_is_forbidden(
    ocitool: Ocitool, busybox_image: str
) -> None:
    require_root()
    look = "grep NoNewPrivs /proc/self/status"
    assert _said(ocitool, busybox_image, script=look) == ["NoNewPrivs:\t0"]
    assert _said(ocitool, "--security-opt", "no-new-privileges", busybox_image, script=look) == [
        "NoNewPrivs:\t1"
    ]


@pytest.mark.root
@pytest.mark.parametrize("isolation", ["full", "chroot"])
@pytest.mark.parametrize("what", ["image", "bundle"])
def test_a_program_gets_no_input_that_it_was_not_given(
    ocitool: Ocitool, busybox_image: str, what: str, isolation: str
) -> None:
    require_root()
    ocitool("unpack", busybox_image, "bundle")
    location = {"image": busybox_image, "bundle": "./bundle"}[what]
    for _ in range(2):  # the second one starts without loading much
        run = ("run", "--isolation", isolation)
        assert ocitool(*run, location, "cat", stdin="a line of the caller's\n").out == ""
        assert ocitool(*run, "-i", location, "cat", stdin="a line\n").out == "a line\n"


@pytest.mark.root
def test_a_loop_keeps_the_lines_that_it_reads(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    loop = 'while read -r line; do "$0" -m ocitool run "$1" cat; echo "$line"; done'
    command = ["sh", "-c", loop, sys.executable, busybox_image]
    done = subprocess.run(
        command, input="1\n2\n", capture_output=True, text=True, env=ocitool.environment, check=False
    )
    assert done.stdout == "1\n2\n", done.stderr


@pytest.mark.parametrize("words", [(), ("--entrypoint", "")], ids=["", "without an entry point"])
def test_an_image_that_names_no_program_has_to_be_told_one(
    anyone: Ocitool, busybox_image: str, words: tuple[str, ...]
) -> None:
    for _ in range(2):
        said = anyone("run", *words, busybox_image, code=125).err
        assert said == "ocitool: the image names no program\n  name one after the image\n"
    assert anyone("run", *words, busybox_image, "echo", "told").out == "told\n"


@pytest.mark.parametrize(
    ("words", "first"),
    [((), "0"), (("--network", "host"), ""), (("--sysctl", "net.ipv4.ip_unprivileged_port_start=99"), "99")],
    ids=["its own network", "the host's", "told otherwise"],
)
def test_a_program_that_is_not_root_may_listen_on_any_port_of_a_network_of_its_own(
    anyone: Ocitool, busybox_image: str, words: tuple[str, ...], first: str
) -> None:
    setting = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    assert _said(anyone, *words, busybox_image, script=f"cat {setting}") == [
        first or setting.read_text().strip()
    ]


@pytest.mark.root
def test_an_images_server_that_is_not_root_listens_on_port_80(ocitool: Ocitool, busybox_image: str) -> None:
    script = "nc -l -p 80 -e true & until nc 127.0.0.1 80 </dev/null; do sleep 0.1; done; echo connected"
    assert ocitool("run", "-u", "1234", busybox_image, "sh", "-c", script).out.endswith("connected\n")
