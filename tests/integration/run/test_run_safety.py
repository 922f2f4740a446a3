"""Attacks on the runtime, by the ids of the project's list (RN-01 to RN-22), on the real kernel."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.peers import require
from support.run_bundles import (
    ORDINARY,
    OURS,
    PYTHON,
    VERSION_2_ALONE,
    Bundle,
    Containers,
    finished,
    host_traces,
)
from support.waiting import until

pytestmark = pytest.mark.root


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_rn_01_an_entry_point_of_proc_self_exe_does_not_run_the_hosts_interpreter(
    containers: Containers, bundle: Bundle
) -> None:
    interpreter = os.path.realpath(PYTHON)
    before = _digest(interpreter)
    # With its libraries it would start in the container, if only to find that it has no modules.
    linked = subprocess.run(["ldd", interpreter], capture_output=True, text=True, check=True).stdout.split()
    for path in [interpreter, *(word for word in linked if word.startswith("/"))]:
        copy = bundle.rootfs / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    bundle.config["process"]["args"] = [interpreter, "--version"]
    bundle.save()
    assert containers.run(bundle).stdout.startswith("Python 3")
    script = bundle.rootfs / "bin" / "evil"
    script.write_text("#!/proc/self/exe\nprint('host python')\n")
    script.chmod(0o755)
    (bundle.rootfs / "bin" / "link").symlink_to("/proc/self/exe")
    for args in (["/bin/evil"], ["/proc/self/exe", "-c", "print('host python')"], ["/bin/link", "--version"]):
        bundle.config["process"]["args"] = args
        bundle.save()
        done = containers.run(bundle)
        assert done.returncode == 127
        assert "python" not in done.stdout.lower()
    assert _digest(os.path.realpath(PYTHON)) == before


def test_rn_01_the_program_is_not_the_interpreter_while_it_starts(
    containers: Containers, bundle: Bundle
) -> None:
    shown = containers.output(bundle, "readlink /proc/1/exe; readlink /proc/self/exe")
    assert shown.splitlines() == ["/bin/busybox", "/bin/busybox"]


def test_rn_02_nothing_is_loaded_between_the_change_of_root_and_the_program(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    for version in ("3", "3.11", "3.12", "3.13"):
        poison = bundle.rootfs / "usr/lib" / f"python{version}"
        poison.mkdir(parents=True)
        for name in ("traceback", "encodings", "os", "linecache"):
            (poison / f"{name}.py").write_text("open('/poisoned', 'w')\n")
    trace = workplace / "trace"
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-traced")
    subprocess.run(
        ["strace", "-f", "-o", str(trace), *command], check=True, timeout=120, stdin=subprocess.DEVNULL
    )
    lines = trace.read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if "pivot_root(" in line)
    child = lines[start].split()[0]
    after = [line for line in lines[start:] if line.startswith(child)]
    end = next(at for at, line in enumerate(after) if "execveat(" in line)
    opened = [line for line in after[:end] if re.search(r"\b(open|openat|openat2|execve)\(", line)]
    paths = {found for line in opened for found in re.findall(r'"([^"]*)"', line)}
    # One file of the container's is read, as text and with its user's rights: for a HOME that nobody named.
    assert paths <= {"/", "self/setgroups", "etc/passwd"}
    assert not (bundle.rootfs / "poisoned").exists()


@pytest.mark.parametrize("number", range(3, 21))
def test_rn_03_a_working_directory_in_a_leaked_descriptor_is_refused(
    containers: Containers, bundle: Bundle, number: int
) -> None:
    bundle.config["process"]["cwd"] = f"/proc/self/fd/{number}"
    done = containers.run(bundle.shell("pwd -P"))
    assert done.returncode != 0
    assert done.stdout == ""


def test_rn_03_the_hosts_tree_is_out_of_reach(containers: Containers, bundle: Bundle) -> None:
    """The change of root leaves it on top of the container's, where "/.." leads, until it is unmounted."""
    here, above, mounts = containers.output(
        bundle, "ls /; echo --; ls /..; echo --; cat /proc/self/mountinfo"
    ).split("--\n")
    assert here == above
    assert [line.split()[4] for line in mounts.splitlines()].count("/") == 1


def test_rn_03_the_program_has_only_the_standard_descriptors(containers: Containers, bundle: Bundle) -> None:
    with Path("/etc/passwd").open("rb") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        shown = containers.output(bundle, "echo /proc/self/fd/*", close_fds=False)
    # The shell itself reads the directory through one more.
    assert shown.split() == [f"/proc/self/fd/{number}" for number in range(4)]


def test_rn_03_a_hook_has_only_the_standard_descriptors(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    list_them = f"ls -l /proc/self/fd >{workplace}/seen"
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", list_them]}]}
    with Path("/etc/passwd").open("rb") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        assert containers.output(bundle, "true", close_fds=False) == ""
    seen = (workplace / "seen").read_text()
    assert f"{workplace}/seen" in seen
    assert "/etc/passwd" not in seen


def test_rn_03_a_created_container_that_waits_holds_no_descriptor_of_its_caller(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    words = ["create", "--bundle", str(bundle.shell("sleep 60").path), f"{OURS}-waits"]
    assert containers.call(*words, close_fds=False).returncode == 0
    os.close(writing)
    pid = containers.state(f"{OURS}-waits")["pid"]
    held = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if int(path.name) > 2]
    state = workplace / "state" / f"{OURS}-waits"
    assert sorted(held) == ["/proc", f"{state}/err", f"{state}/go"]
    # Nobody has the other end any more.
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert containers.call("start", f"{OURS}-waits").returncode == 0
    containers.wait_for(f"{OURS}-waits", "running")


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_rn_04_a_root_whose_proc_or_sys_is_a_link_is_refused(
    containers: Containers, bundle: Bundle, name: str
) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / "elsewhere").mkdir()
    (bundle.rootfs / name).symlink_to("/elsewhere")
    done = containers.run(bundle)
    assert done.returncode == 15
    assert "must be mounted on an ordinary directory" in done.stderr


def test_rn_05_a_destination_that_is_swapped_for_a_link_stays_inside(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    canary = workplace / "canary"
    canary.mkdir()
    volume = workplace / "volume"
    volume.mkdir()
    bundle.config["mounts"].append(
        {"destination": "/a/b/c", "type": "bind", "source": str(volume), "options": ["rbind", "rw"]}
    )
    bundle.save()
    stop = threading.Event()

    def swap() -> None:
        target = bundle.rootfs / "a"
        while not stop.is_set():
            with suppress(OSError):
                if target.is_symlink():
                    target.unlink()
                    target.mkdir()
                else:
                    shutil.rmtree(target)
                    target.symlink_to(canary)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(25):
            containers.run(bundle)
    finally:
        stop.set()
        swapper.join()
    assert list(canary.iterdir()) == []


@pytest.mark.parametrize("target", ["{canary}", "../../../../../../..{canary}"])
def test_rn_05_rn_09_what_lies_below_a_link_is_made_inside_the_root(
    containers: Containers, bundle: Bundle, workplace: Path, target: str
) -> None:
    canary = workplace / "canary"
    canary.mkdir()
    inside = bundle.rootfs / str(canary).lstrip("/")
    inside.mkdir(parents=True)
    (bundle.rootfs / "link").symlink_to(target.format(canary=canary))
    bundle.config["mounts"] += [
        {"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/link/file", "type": "bind", "source": "/etc/passwd", "options": ["bind"]},
    ]
    assert containers.output(bundle, "grep -c '^root:' /link/file") == "1\n"
    assert list(canary.iterdir()) == []
    assert sorted(path.name for path in inside.iterdir()) == ["file", "made"]


@pytest.mark.parametrize(
    ("kind", "minor"),
    [(stat.S_IFREG, 0), (stat.S_IFCHR, 5), (stat.S_IFBLK, 3)],
    ids=["file", "zero", "block"],
)
def test_rn_06_a_host_whose_null_device_is_something_else_has_no_masks(
    containers: Containers, bundle: Bundle, workplace: Path, kind: int, minor: int
) -> None:
    other = workplace / "other"
    os.mknod(other, kind | 0o666, os.makedev(1, minor))
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-null")
    script = f'mount --bind {other} /dev/null && exec "$@"'
    done = finished(["unshare", "--mount", "sh", "-c", script, "sh", *command])
    assert (done.returncode, "is not the null device" in done.stderr) == (125, True), done.stderr


def test_rn_06_masks_come_from_the_real_null_device(containers: Containers, bundle: Bundle) -> None:
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").mkdir()
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    bundle.config["mounts"] = [
        mount for mount in bundle.config["mounts"] if not mount["destination"].startswith("/dev")
    ]
    bundle.config["linux"]["maskedPaths"] = ["/proc/keys"]
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    done = containers.run(bundle.shell("echo evil > /proc/keys; stat -c %t:%T /proc/keys"))
    # The device that the image has in the way is refused, or the mask is the device itself.
    assert done.returncode != 0 or done.stdout == "1:3\n"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_rn_07_a_console_that_is_a_link_does_not_lead_outside(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    canary = workplace / "canary"
    canary.write_text("untouched")
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != "/dev"]
    (bundle.rootfs / "dev" / "pts").mkdir()
    (bundle.rootfs / "dev" / "console").symlink_to(canary)
    bundle.config["process"]["terminal"] = True
    containers.run(bundle.shell("echo evil > /dev/console"))
    assert canary.read_text() == "untouched"


@pytest.mark.parametrize(
    "destination", ["/proc/self/attr", "/proc/sys", "/proc", "/proc/../proc/self", "/sneaky/attr"]
)
def test_rn_08_nothing_is_mounted_over_a_part_of_proc(
    containers: Containers, bundle: Bundle, destination: str
) -> None:
    (bundle.rootfs / "sneaky").symlink_to("/proc/self")
    bundle.config["mounts"].append({"destination": destination, "type": "tmpfs", "source": "tmpfs"})
    bundle.save()
    done = containers.run(bundle)
    assert done.returncode == 15
    assert "would cover a part of /proc" in done.stderr


@pytest.mark.parametrize("target", ["{canary}", "../../../../../..{canary}"])
def test_rn_09_a_dev_that_is_a_link_makes_nothing_on_the_host(
    containers: Containers, bundle: Bundle, workplace: Path, target: str
) -> None:
    canary = workplace / "canary"
    canary.mkdir()
    for name in ("dev", "etc"):
        (bundle.rootfs / name).rmdir()
        (bundle.rootfs / name).symlink_to(target.format(canary=canary))
    source = workplace / "resolv.conf"
    source.write_text("nameserver 127.0.0.1\n")
    bundle.config["mounts"].append(
        {"destination": "/etc/resolv.conf", "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
    )
    bundle.save()
    containers.run(bundle)
    assert list(canary.iterdir()) == []


def _status(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_rn_10_and_rn_22_capabilities_are_exact_in_run_and_in_exec(
    containers: Containers, bundle: Bundle
) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-caps")
    shown = _status(containers.call("exec", f"{OURS}-caps", "cat", "/proc/self/status").stdout)
    first = _status(containers.call("exec", f"{OURS}-caps", "cat", "/proc/1/status").stdout)
    for status in (shown, first):
        assert status["CapInh"] == status["CapAmb"] == "0" * 16
        assert status["CapPrm"] == status["CapEff"] == status["CapBnd"] == "00000000a80425fb"
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_rn_10_exec_adds_capabilities_to_no_inheritable_set(containers: Containers, bundle: Bundle) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-add")
    words = ("exec", "--cap", "CAP_SYS_PTRACE", f"{OURS}-add", "cat", "/proc/self/status")
    status = _status(containers.call(*words).stdout)
    assert status["CapInh"] == status["CapAmb"] == "0" * 16
    assert status["CapEff"] == "00000000a80c25fb"


def test_rn_10_an_ambient_capability_of_the_callers_is_not_handed_on(
    containers: Containers, bundle: Bundle
) -> None:
    """Not even one that may be inherited, which alone would leave it in force."""
    for kind in ("bounding", "effective", "permitted", "inheritable"):
        bundle.config["process"]["capabilities"][kind] = ["CAP_NET_RAW"]
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-ambient")
    bundle.shell("cat /proc/self/status")
    done = finished(["setpriv", "--inh-caps", "+net_raw", "--ambient-caps", "+net_raw", *command])
    status = _status(done.stdout)
    assert status["CapInh"] == status["CapPrm"] == "0000000000002000", done.stderr
    assert status["CapAmb"] == "0" * 16


def test_rn_11_only_the_groups_that_are_asked_for_stay(containers: Containers, bundle: Bundle) -> None:
    bundle.config["process"]["user"] = {"uid": 1001, "gid": 1002, "additionalGids": [5, 7]}
    done = containers.run(bundle.shell("cat /proc/self/status"), extra_groups=[0, 4, 27])
    status = _status(done.stdout)
    assert status["Groups"].split() == ["5", "7"]
    assert status["Uid"].split() == ["1001"] * 4
    assert status["Gid"].split() == ["1002"] * 4


@pytest.mark.parametrize("uid", [4294967295, 4294967296, -1, "0", 1.0])
def test_rn_12_a_user_that_is_no_number_of_a_user_is_refused(
    containers: Containers, bundle: Bundle, uid: object
) -> None:
    bundle.config["process"]["user"] = {"uid": uid, "gid": 0}
    bundle.save()
    done = containers.run(bundle)
    assert done.returncode == 14
    assert "process.user.uid" in done.stderr


def test_rn_13_the_images_environment_does_not_reach_the_runtime(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    poison = workplace / "poison"
    poison.mkdir()
    (poison / "json.py").write_text(f"open({str(poison / 'loaded')!r}, 'w')\n")
    bundle.config["process"]["env"] = [
        "PATH=/bin", f"PYTHONPATH={poison}", "LD_PRELOAD=/evil.so", "PYTHONINSPECT=1", "NOVALUE",
    ]  # fmt: skip
    bundle.config["annotations"] = {"run.oci.handler": "/evil", "org.example": "../../x"}
    shown = containers.output(bundle, "env", env={"PYTHONPATH": str(poison), "PATH": "/usr/bin:/bin"})
    assert f"PYTHONPATH={poison}" in shown
    assert list(poison.iterdir()) == [poison / "json.py"]


def test_rn_13_a_nul_in_the_configuration_is_an_error(containers: Containers, bundle: Bundle) -> None:
    bundle.config["process"]["env"] = ["A=b\0c"]
    bundle.save()
    assert containers.run(bundle).returncode == 14


def test_rn_14_masked_and_read_only_paths_hold(containers: Containers, bundle: Bundle) -> None:
    script = """
        for path in /proc/kcore /proc/keys /proc/timer_list; do
            [ ! -e $path ] || [ "$(wc -c < $path)" = 0 ] || echo $path
        done
        ls /sys/firmware /proc/acpi 2>/dev/null | grep -v :
        rm /proc/keys && echo removed
        umount /proc/keys && echo unmounted
        umount /sys/firmware && echo unmounted
        panic=$(cat /proc/sys/kernel/panic) && echo $panic > /proc/sys/kernel/panic && echo written
        [ ! -e /proc/sysrq-trigger ] || ! echo h > /proc/sysrq-trigger || echo triggered
        for path in /proc/bus /proc/fs /proc/irq /proc/sys; do
            [ ! -e $path ] || grep -q " $path ro," /proc/self/mountinfo || echo $path
        done
        true
    """
    assert containers.output(bundle, script).strip() == ""


def test_rn_14_a_masked_path_that_is_a_link_is_refused(containers: Containers, bundle: Bundle) -> None:
    """Masked would be what it leads to, and the link could lead elsewhere later."""
    (bundle.rootfs / "secret").symlink_to("/etc")
    bundle.config["linux"]["maskedPaths"] = ["/secret"]
    bundle.save()
    done = containers.run(bundle)
    assert (done.returncode, "masked path /secret: " in done.stderr) == (125, True), done.stderr


def test_rn_14_a_path_that_is_listed_twice_is_masked_once(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["maskedPaths"] = ["/proc/keys", "/proc//keys", "/proc/keys/"]
    shown = containers.output(bundle, "grep -c /proc/keys /proc/self/mountinfo")
    assert shown == "1\n"


def test_rn_15_the_default_filter_is_in_force(containers: Containers, bundle: Bundle) -> None:
    bundle.config["process"]["capabilities"]["bounding"].append("CAP_SYS_ADMIN")
    bundle.config["process"]["capabilities"]["effective"].append("CAP_SYS_ADMIN")
    bundle.config["process"]["capabilities"]["permitted"].append("CAP_SYS_ADMIN")
    done = containers.run(bundle.shell("mount -t tmpfs none /tmp || unshare -m true || echo denied"))
    assert done.stdout == "denied\n"


def test_rn_16_a_cgroup_path_cannot_climb(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["cgroupsPath"] = f"/ocitool-{OURS}/../../x"
    bundle.save()
    assert containers.run(bundle).returncode == 14


def test_rn_16_a_cgroup_that_others_use_is_refused(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["cgroupsPath"] = f"/ocitool-{OURS}-shared"
    containers.started(bundle.shell("sleep 60"), f"{OURS}-first")
    done = containers.run(bundle)
    assert done.returncode == 17
    assert "holds processes" in done.stderr
    assert containers.state(f"{OURS}-first")["status"] == "running"


@pytest.mark.skipif(VERSION_2_ALONE, reason="this host has no cgroup version 1")
def test_rn_16_an_ordinary_users_container_sees_the_cgroups_it_is_in_and_changes_none(
    containers: Containers, ordinary_bundle: Bundle
) -> None:
    """As runc shows them; of a cgroup that is not the container's, nothing can be made or moved."""
    cgroup = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid"]}
    ordinary_bundle.config["mounts"] = [
        mount for mount in ordinary_bundle.config["mounts"] if mount["destination"] != "/sys/fs/cgroup"
    ] + [cgroup]
    script = (
        "cd /sys/fs/cgroup; for each in *; do echo $each $(wc -l <$each/cgroup.procs); mkdir $each/x; done"
    )
    done = containers.run(ordinary_bundle.shell(script), ordinary=True)
    own = [line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    names = {name.removeprefix("name=") for name in own if name}
    shown = dict(line.split() for line in done.stdout.splitlines())
    assert set(shown) == names
    assert all(int(processes) > 0 for processes in shown.values())
    assert done.stderr.count("Read-only file system") == len(names)


@pytest.mark.parametrize("name", ["../x", ".", "..", "a/b", "x" * 1025, "", "ü", "a b", "a\n"])
def test_rn_17_an_id_is_never_a_path(containers: Containers, bundle: Bundle, name: str) -> None:
    done = containers.call("create", "--bundle", str(bundle.path), "--", name)
    assert done.returncode in (2, 14)
    assert containers.remembered() == []


def test_rn_18_a_created_container_can_be_read_by_nobody(
    containers: Containers, ordinary_bundle: Bundle
) -> None:
    words = ("create", "--bundle", str(ordinary_bundle.path), f"{OURS}-created")
    done = containers.call(*words, ordinary=True)
    assert done.returncode == 0, done.stderr
    pid = containers.state(f"{OURS}-created", ordinary=True)["pid"]
    # The kernel gives the files of a process that is not dumpable to root.
    assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    targets = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert [target for target in targets if target.is_dir() and str(target) != "/proc"] == []


def test_rn_19_mounts_of_a_container_do_not_reach_the_host(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    bundle.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    bundle.save()
    # A mount namespace of our own, in which everything is shared: whatever leaks would show there.
    table = "cat /proc/self/mountinfo"
    steps = f"mount --make-rshared / && {table} > before && {{run}} && {table} > after"
    run = " ".join(containers.command("run", "--bundle", str(bundle.path), f"{OURS}-mounts"))
    script = steps.format(run=run)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    subprocess.run(command, check=True, timeout=120, cwd=workplace, stdin=subprocess.DEVNULL)
    assert (workplace / "before").read_text() == (workplace / "after").read_text()


@pytest.mark.parametrize(
    ("option", "root", "inside", "outside"),
    [
        ("rshared", "", "shared", False),
        ("rshared", "rslave", "shared", False),
        ("rprivate", "rshared", "", False),
        ("rslave", "rshared", "master", False),
        ("rshared", "rshared", "shared", True),
        ("rshared", "shared", "shared", True),
    ],
)
def test_rn_19_the_host_sees_mounts_of_a_container_only_where_both_propagations_say_so(
    containers: Containers,
    bundle: Bundle,
    workplace: Path,
    option: str,
    root: str,
    inside: str,
    *,
    outside: bool,
) -> None:
    volume = workplace / "volume"
    volume.mkdir()
    bundle.config["mounts"].append(
        {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind", option]}
    )
    bundle.config["linux"]["rootfsPropagation"] = root
    del bundle.config["linux"]["seccomp"]
    for kind in ("bounding", "effective", "permitted"):
        bundle.config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    bundle.shell(
        "mkdir -p /volume/in && mount -t tmpfs inner /volume/in && grep ' /volume ' /proc/self/mountinfo"
    )
    run = " ".join(containers.command("run", "--bundle", str(bundle.path), f"{OURS}-shared"))
    made = f"mount -t tmpfs x {volume} && mount --make-shared {volume}"
    script = f"{made} && {run} && cat /proc/self/mountinfo"
    done = finished(["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
    assert done.returncode == 0, done.stderr
    seen, *host = done.stdout.splitlines()
    assert any(f" {volume}/in " in line for line in host) is outside
    tags = [tag.partition(":")[0] for tag in seen.partition(" - ")[0].split()[6:]]
    assert [tag for tag in tags if tag == inside] == ([inside] if inside else [])
    assert "shared" not in tags or inside == "shared"


# Calls of the runtime that change something, and at which of them it is killed.
KILLED_AT = [
    *[("mkdir", number) for number in (1, 2, 3, 6, 11)],
    *[("write", number) for number in (1, 2, 5, 9, 14, 20, 25)],
    *[("rename", number) for number in (1, 2, 3, 4)],
    *[("rmdir", number) for number in (1, 4)],
    *[("unlink", number) for number in (1, 3)],
    ("clone3", 1), ("rt_sigtimedwait", 1), ("fcntl", 1),
]  # fmt: skip


@pytest.mark.parametrize(("call", "number"), KILLED_AT)
def test_rn_20_a_runtime_that_is_killed_at_any_call_leaves_what_delete_takes_away(
    containers: Containers, bundle: Bundle, call: str, number: int
) -> None:
    require("strace")
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-killed")
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    subprocess.run([*inject, *command], stdin=subprocess.DEVNULL, timeout=120, check=False)
    _delete_and_look(containers, bundle)


@pytest.mark.parametrize("delay", [0.02, 0.035, 0.05, 0.2])
def test_rn_20_a_runtime_that_is_killed_at_any_time_leaves_what_delete_takes_away(
    containers: Containers, bundle: Bundle, delay: float
) -> None:
    bundle.shell("sleep 60")
    process = subprocess.Popen(
        containers.command("run", "--bundle", str(bundle.path), f"{OURS}-killed"), stdin=subprocess.DEVNULL
    )
    time.sleep(delay)
    process.kill()
    process.wait()
    _delete_and_look(containers, bundle)


def _delete_and_look(containers: Containers, bundle: Bundle) -> None:
    done = containers.call("delete", "--force", f"{OURS}-killed")
    assert done.returncode == 0, done.stderr
    assert not (containers.root / f"{OURS}-killed").exists()
    assert host_traces(containers.base) == []
    marker = str(bundle.path).encode()
    # A child that waits for its runtime ends when it sees that this is gone, a moment later.
    until(lambda: not [entry for entry in Path("/proc").glob("[0-9]*") if marker in _command_line(entry)])


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_rn_21_no_abstract_socket_is_made(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["namespaces"] = [
        entry for entry in bundle.config["linux"]["namespaces"] if entry["type"] != "network"
    ]
    bundle.shell("cat /proc/self/net/unix")
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-sockets")
    # The runtime and the container alone are in that network.
    done = finished(["unshare", "--net", *command])
    assert done.stdout.startswith("Num ")
    assert "@" not in done.stdout


def test_rn_22_exec_enters_the_cgroup_and_sees_the_masks(containers: Containers, bundle: Bundle) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-exec")
    done = containers.call(
        "exec", f"{OURS}-exec", "sh", "-c", "cat /proc/keys; cat /proc/self/cgroup /proc/1/cgroup"
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_the_state_is_closed_to_others(containers: Containers, bundle: Bundle) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-state")
    assert containers.root.stat().st_mode & 0o777 == 0o700
    saved = containers.root / f"{OURS}-state" / "state.json"
    assert saved.stat().st_mode & 0o777 == 0o600
    assert json.loads(saved.read_text())["id"] == f"{OURS}-state"


def test_a_number_that_passed_to_another_process_is_not_signalled(
    containers: Containers, bundle: Bundle
) -> None:
    pid = containers.started(bundle.shell("sleep 60"), f"{OURS}-reused")
    saved = containers.root / f"{OURS}-reused" / "state.json"
    fields = json.loads(saved.read_text())
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        saved.write_text(json.dumps({**fields, "pid": bystander.pid}))
        assert containers.call("kill", f"{OURS}-reused", "KILL").returncode == 17
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        saved.write_text(json.dumps(fields))
        os.kill(pid, signal.SIGKILL)


def test_a_state_directory_that_another_user_has_put_there_is_refused(
    containers: Containers, ordinary_bundle: Bundle, workplace: Path
) -> None:
    victim = workplace / "victim"
    victim.mkdir()
    os.chown(victim, ORDINARY, ORDINARY)
    link = containers.ordinary_root / "link"
    link.symlink_to(victim)
    words = ("--root", str(link), "create", "--bundle", str(ordinary_bundle.path), f"{OURS}-x")
    assert containers.call(*words, ordinary=True).returncode == 125
    assert list(victim.iterdir()) == []
    link.unlink()
