"""The life cycle of containers through the command line that engines call (runtime.md)."""

from __future__ import annotations

import array
import json
import os
import pty
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from support.peers import require
from support.run_bundles import MAIN, ORDINARY, OURS, PYTHON, VERSION_2_ALONE, Bundle, Containers
from support.waiting import until

from ocitool.errors import Conflict, NotFound, RunError
from ocitool.run import Overlay, newcgroup, run_bundle

pytestmark = pytest.mark.root


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_the_exit_status_is_the_programs_own(containers: Containers, bundle: Bundle, code: int) -> None:
    assert containers.run(bundle.shell(f"exit {code}")).returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_program_that_a_signal_ended_gives_128_and_its_number(
    containers: Containers, bundle: Bundle, number: int
) -> None:
    bundle.config["linux"]["namespaces"] = [
        entry for entry in bundle.config["linux"]["namespaces"] if entry["type"] != "pid"
    ]
    assert containers.run(bundle.shell(f"kill -{int(number)} $$")).returncode == 128 + number


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["nonexistent"], 127, "executable file not found"),
        (["/bin/nonexistent"], 127, "no such file or directory"),
        (["/etc"], 126, "permission denied"),
        (["/text"], 126, "exec format error"),
    ],
)
def test_a_program_that_cannot_run_gives_the_codes_of_a_shell(
    containers: Containers, bundle: Bundle, args: list[str], code: int, words: str
) -> None:
    (bundle.rootfs / "text").write_bytes(b"\x00\x01no program")
    (bundle.rootfs / "text").chmod(0o755)
    bundle.config["process"]["args"] = args
    bundle.save()
    done = containers.run(bundle)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_the_standard_streams_pass_through(containers: Containers, bundle: Bundle) -> None:
    with (bundle.path / "config.json").open("rb") as source:
        done = containers.run(bundle.shell("cat; echo problem >&2"), stdin=source)
    assert done.stdout == (bundle.path / "config.json").read_text()
    assert done.stderr == "problem\n"


def test_signals_are_forwarded(containers: Containers, bundle: Bundle) -> None:
    bundle.shell("trap 'echo got; exit 9' USR1; echo ready; while true; do sleep 0.05; done")
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-signals")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == "got\n"
    assert process.returncode == 9


def test_states_follow_each_other_and_nothing_else_does(containers: Containers, bundle: Bundle) -> None:
    bundle.shell("exec sleep 60")
    assert containers.call("state", f"{OURS}-life").returncode == NotFound.exit_code
    assert containers.call("create", "--bundle", str(bundle.path), f"{OURS}-life").returncode == 0
    state = containers.state(f"{OURS}-life")
    assert (state["status"], state["bundle"], state["id"]) == ("created", str(bundle.path), f"{OURS}-life")
    # "MUST NOT run the user-specified program"
    assert b"sleep" not in Path(f"/proc/{state['pid']}/cmdline").read_bytes()
    assert (
        containers.call("create", "--bundle", str(bundle.path), f"{OURS}-life").returncode
        == Conflict.exit_code
    )
    assert containers.call("delete", f"{OURS}-life").returncode == Conflict.exit_code
    assert containers.call("start", f"{OURS}-life").returncode == 0
    assert containers.state(f"{OURS}-life")["status"] == "running"
    program = Path(f"/proc/{state['pid']}/cmdline")
    until(lambda: program.read_bytes() == b"sleep\x0060\0")  # the shell becomes it
    assert containers.call("start", f"{OURS}-life").returncode == Conflict.exit_code
    assert containers.call("delete", f"{OURS}-life").returncode == Conflict.exit_code
    assert containers.call("kill", f"{OURS}-life", "KILL").returncode == 0
    containers.wait_for(f"{OURS}-life", "stopped")
    assert containers.call("kill", f"{OURS}-life", "KILL").returncode == Conflict.exit_code
    assert containers.call("start", f"{OURS}-life").returncode == Conflict.exit_code
    assert containers.call("delete", f"{OURS}-life").returncode == 0
    assert containers.call("state", f"{OURS}-life").returncode == NotFound.exit_code


def test_an_id_can_be_used_again(containers: Containers, bundle: Bundle) -> None:
    for _ in range(2):
        containers.started(bundle.shell("sleep 60"), f"{OURS}-again")
        assert containers.call("delete", "--force", f"{OURS}-again").returncode == 0


def test_changes_after_create_have_no_effect(containers: Containers, bundle: Bundle) -> None:
    bundle.shell("echo first > /result")
    assert containers.call("create", "--bundle", str(bundle.path), f"{OURS}-snapshot").returncode == 0
    bundle.shell("echo second > /result")
    assert containers.call("start", f"{OURS}-snapshot").returncode == 0
    containers.wait_for(f"{OURS}-snapshot", "stopped")
    assert (bundle.rootfs / "result").read_text() == "first\n"


def test_a_failed_create_leaves_nothing(containers: Containers, bundle: Bundle) -> None:
    bundle.config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "none"})
    bundle.save()
    done = containers.call("create", "--bundle", str(bundle.path), f"{OURS}-failed")
    assert done.returncode == RunError.exit_code
    assert "mount /x (nosuchfs" in done.stderr
    assert containers.remembered() == []


def test_hooks_run_in_order_with_the_state_on_their_input(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    log = workplace / "log"
    script = workplace / "hook"
    script.write_text(
        f'#!/bin/sh\nread state\necho "$1 $(readlink /proc/self/ns/mnt) $HOOK $state" >> {log}\n'
    )
    script.chmod(0o755)
    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    bundle.config["hooks"] = {
        kind: [{"path": str(script), "args": ["hook", f"{kind}{n}"], "env": [f"HOOK={kind}"]} for n in (1, 2)]
        for kind in kinds
    }
    bundle.config["hooks"]["startContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /start"]}]
    bundle.config["annotations"] = {"org.example": "value"}
    assert containers.run(bundle.shell("exit 3")).returncode == 3
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == [f"{kind}{n}" for kind in kinds for n in (1, 2)]
    states = {line[0]: json.loads(line[3]) for line in lines}
    # The hooks of `create` come after step 2 of the life cycle, which is where "created" begins.
    assert states["createRuntime1"]["status"] == "created"
    assert states["poststart1"]["status"] == "running"
    assert states["poststop1"]["status"] == "stopped"
    assert states["prestart1"]["annotations"] == {"org.example": "value"}
    spaces = {line[0]: line[1] for line in lines}
    own = str(Path("/proc/self/ns/mnt").readlink())
    assert spaces["createRuntime1"] == spaces["poststop2"] == own
    assert spaces["createContainer1"] != own
    assert json.loads((bundle.rootfs / "start").read_text())["id"] == states["prestart1"]["id"]


@pytest.mark.parametrize(
    "kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_a_hook_that_fails_stops_the_container_and_poststop_runs(
    containers: Containers, bundle: Bundle, workplace: Path, kind: str
) -> None:
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/false"}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo > {workplace}/stopped"]}],
    }
    done = containers.run(bundle.shell("sleep 60"))
    assert done.returncode == RunError.exit_code
    assert f"{kind} hook /bin/false failed" in done.stderr
    assert (workplace / "stopped").exists()
    assert containers.remembered() == []


def test_a_hook_that_does_not_end_in_time_is_killed(containers: Containers, bundle: Bundle) -> None:
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]
    }
    # More than a pipe would take from us while nobody reads it.
    bundle.config["annotations"] = {"org.example": "x" * 200_000}
    bundle.save()
    done = containers.run(bundle)
    assert "did not end within 1 s" in done.stderr


def test_a_poststop_hook_that_fails_is_a_warning(containers: Containers, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}]}
    bundle.save()
    done = containers.run(bundle)
    assert done.returncode == 0
    assert "warning: poststop hook /bin/false failed" in done.stderr


def test_exec_gives_the_exit_status_of_its_own_program(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-exec")
    assert containers.call("exec", f"{OURS}-exec", "sh", "-c", "exit 5").returncode == 5
    assert containers.call("exec", f"{OURS}-exec", "nonexistent").returncode == 127
    done = containers.call(
        "exec",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        "--user",
        "3:4",
        f"{OURS}-exec",
        "sh",
        "-c",
        "pwd; echo $A; id",
    )
    assert done.stdout.splitlines()[:2] == ["/tmp", "b"]
    assert "uid=3 gid=4" in done.stdout
    wanted = {**bundle.config["process"], "args": ["sh", "-c", "echo $B"], "env": ["B=c", "PATH=/bin"]}
    (workplace / "process.json").write_text(json.dumps(wanted))
    assert (
        containers.call("exec", "--process", str(workplace / "process.json"), f"{OURS}-exec").stdout == "c\n"
    )
    pid_file = workplace / "pid"
    words = ("exec", "--detach", "--pid-file", str(pid_file), f"{OURS}-exec", "sleep", "50")
    assert containers.call(*words).returncode == 0
    assert Path(f"/proc/{pid_file.read_text()}/cmdline").read_bytes() == b"sleep\x0050\0"


def test_ps_shows_the_containers_processes_as_ps_itself_does(containers: Containers, bundle: Bundle) -> None:
    pid = containers.started(bundle.shell("exec sleep 60"), f"{OURS}-ps")
    title, *rows = containers.call("ps", f"{OURS}-ps").stdout.splitlines()
    assert title.split()[:3] == ["UID", "PID", "PPID"]
    assert [row.split()[:2] + row.split()[-2:] for row in rows] == [["root", str(pid), "sleep", "60"]]
    done = containers.call("ps", f"{OURS}-ps", "-e", "-o", "comm,pid,nlwp")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["COMMAND", "PID", "NLWP"],
        ["sleep", str(pid), "1"],
    ]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--nonsense"], 125, "ps --nonsense ended with status 1"),
        (["-e", "-o", "comm"], 125, "ps shows no column PID (leave the title in"),
        (["-e", "-o", "lstart,pid"], 125, "the column PID of ps is not to be found (ask for it first"),
    ],
)
def test_what_ps_can_not_tell_is_an_error(
    containers: Containers, bundle: Bundle, options: list[str], code: int, said: str
) -> None:
    containers.started(bundle.shell("exec sleep 60"), f"{OURS}-ps")
    done = containers.call("ps", f"{OURS}-ps", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert f"ocitool-runtime: {said}" in done.stderr


def test_a_host_without_ps_has_the_numbers(containers: Containers, bundle: Bundle) -> None:
    pid = containers.started(bundle.shell("exec sleep 60"), f"{OURS}-ps")
    done = containers.call("ps", f"{OURS}-ps", env={"PATH": "/nonexistent"})
    assert (done.returncode, "use --format json" in done.stderr) == (125, True)
    assert json.loads(containers.call("ps", "--format", "json", f"{OURS}-ps").stdout) == [pid]
    assert containers.call("ps", "--format", "json", f"{OURS}-ps", "-ef").returncode == 2


def test_a_container_that_ends_while_a_process_is_to_be_started_is_named(
    containers: Containers, bundle: Bundle
) -> None:
    require("strace")
    pid = containers.started(bundle.shell("sleep 60"), f"{OURS}-dying")
    slowly = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", "inject=setns:delay_enter=1000000"]
    command = [*slowly, *containers.command("exec", f"{OURS}-dying", "true")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: _holds_a_process(process.pid))
        os.kill(pid, signal.SIGKILL)
        assert process.stderr is not None
        said = process.stderr.read()
    assert said == f"ocitool-runtime: container {OURS}-dying is stopped: nothing can be started in it\n"
    assert process.returncode == Conflict.exit_code


def _holds_a_process(pid: int) -> bool:
    """Whether a process has a descriptor of another one."""
    opened = list(Path(f"/proc/{pid}/fd").iterdir())
    return any("pidfd" in str(path.readlink()) for path in opened if path.is_symlink())


def test_pause_resume_update_and_events(containers: Containers, bundle: Bundle) -> None:
    pid = containers.started(bundle.shell("exec sleep 60"), f"{OURS}-limits")
    assert containers.call("pause", f"{OURS}-limits").returncode == 0
    assert containers.state(f"{OURS}-limits")["status"] == "paused"
    assert containers.call("exec", f"{OURS}-limits", "true").returncode == Conflict.exit_code
    assert containers.call("resume", f"{OURS}-limits").returncode == 0
    assert containers.state(f"{OURS}-limits")["status"] == "running"
    assert json.loads(containers.call("ps", "--format", "json", f"{OURS}-limits").stdout) == [pid]
    limits = ("--memory", "48m", "--memory-swap", "48m", "--pids-limit", "21", "--cpu-quota", "50000")
    assert containers.call("update", *limits, f"{OURS}-limits").returncode == 0
    data = json.loads(containers.call("events", "--stats", f"{OURS}-limits").stdout)["data"]
    assert data["memory"]["usage"]["limit"] == 48 << 20
    assert data["memory"]["swap"]["limit"] == 48 << 20
    assert data["memory"]["cache"] >= 0
    assert data["pids"] == {"current": 1, "limit": 21}

    def used() -> int:
        work = "n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done"
        assert containers.call("exec", f"{OURS}-limits", "sh", "-c", work).returncode == 0
        usage = json.loads(containers.call("events", "--stats", f"{OURS}-limits").stdout)["data"]["cpu"][
            "usage"
        ]
        return int(usage["user"] + usage["kernel"])

    until(used)  # it is counted in ticks of the clock, which may miss what is short
    assert set(data["cpu"]["throttling"]) == {"periods", "throttledPeriods", "throttledTime"}
    listed = json.loads(containers.call("list", "--format", "json").stdout)
    assert [state["id"] for state in listed] == [f"{OURS}-limits"]
    assert containers.call("list", "--quiet").stdout == f"{OURS}-limits\n"


def test_limits_are_in_force(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["resources"].update(
        {"memory": {"limit": 32 << 20}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100000}}
    )
    files = "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us"
    if VERSION_2_ALONE:
        files = "memory.max pids.max cpu.max"
    script = f"cd /sys/fs/cgroup; cat {files}; head -c 64m /dev/zero | tail > /dev/null; echo $?"
    # Half a processor's time, and perhaps of an emulated processor.
    memory, pids, cpu, status = containers.run(bundle.shell(script), timeout=300).stdout.splitlines()
    assert (memory, pids) == (str(32 << 20), "20")
    assert cpu == ("50000 100000" if VERSION_2_ALONE else "50000")
    assert status != "0"


def test_device_rules_are_in_force(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["resources"]["devices"].append(
        {"allow": False, "type": "c", "major": 1, "minor": 5, "access": "rwm"}
    )
    bundle.save()
    done = containers.run(
        bundle.shell(
            "echo > /dev/null && echo null; head -c1 /dev/zero || echo no zero; mknod /m b 7 0 && cat /m"
        )
    )
    assert "null\nno zero\n" in done.stdout
    assert "'/m': Operation not permitted" in done.stderr


def test_mounts_of_every_usual_kind(containers: Containers, bundle: Bundle, workplace: Path) -> None:
    volume = workplace / "volume"
    volume.mkdir()
    (volume / "file").write_text("content")
    (bundle.rootfs / "full").mkdir(mode=0o751)
    (bundle.rootfs / "full" / "inner").write_text("copied")
    os.chown(bundle.rootfs / "full", 5, 6)
    bundle.config["mounts"] += [
        {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind", "ro"]},
        {"destination": "one/file", "type": "bind", "source": "../volume/file", "options": ["bind"]},
        {
            "destination": "/t",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["noexec", "size=4m", "mode=700"],
        },
        {"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]},
        {"destination": "/made", "type": "tmpfs", "source": "tmpfs"},
    ]
    script = """cat /v/file /one/file /full/inner
        echo x > /v/new || echo read-only
        echo y > /full/new || echo read-only
        stat -c %a:%u:%g /t /full /made
        stat -c %t:%T /dev/null; readlink /dev/ptmx; readlink /dev/fd"""
    lines = containers.output(bundle, script).splitlines()
    assert lines == [
        "contentcontentcopiedread-only",
        "read-only",
        "700:0:0",
        "751:5:6",
        "1777:0:0",
        "1:3",
        "pts/ptmx",
        "/proc/self/fd",
    ]
    assert not (volume / "new").exists()


def test_an_id_mapped_mount_shows_other_owners(containers: Containers, bundle: Bundle) -> None:
    volume = bundle.path / "volume"
    volume.mkdir()
    (volume / "file").write_text("")
    os.chown(volume / "file", 5000, 5000)
    mapping = [{"containerID": 5000, "hostID": 7000, "size": 1}]
    bundle.config["mounts"].append(
        {"destination": "/v", "type": "bind", "source": "volume", "options": ["rbind", "idmap"],
         "uidMappings": mapping, "gidMappings": mapping}
    )  # fmt: skip
    done = containers.run(bundle.shell("stat -c %u:%g /v/file"))
    if "nvalid argument" in done.stderr:
        pytest.skip("the file system under the test's directory cannot be id-mapped on this kernel")
    assert done.stdout == "7000:7000\n"


def test_the_process_is_what_the_configuration_says(containers: Containers, bundle: Bundle) -> None:
    process = bundle.config["process"]
    process.update(
        {"cwd": "/tmp", "oomScoreAdj": 500, "user": {"uid": 12, "gid": 34, "umask": 0o27},
         "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
         "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
         "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}
    )  # fmt: skip
    bundle.config["hostname"] = "inside"
    bundle.config["domainname"] = "example"
    bundle.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}
    script = """pwd; hostname; cat /proc/sys/kernel/domainname; umask; cat /proc/self/oom_score_adj
        grep 'open files' /proc/self/limits; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni
        id -u; id -g"""
    lines = containers.output(bundle, script).splitlines()
    assert lines[:5] == ["/tmp", "inside", "example", "0027", "500"]
    assert lines[5].split()[3:5] == ["100", "200"]
    assert lines[6:] == ["1", "77", "12", "34"]


@pytest.mark.parametrize(
    ("uid", "given", "home"),
    [(0, [], "/root"), (12, [], "/home/twelve"), (13, [], "/"), (12, ["HOME=/else"], "/else"), (14, [], "/")],
)
def test_a_home_directory_that_nobody_named_is_the_one_of_the_containers_own_passwd(
    containers: Containers, bundle: Bundle, uid: int, given: list[str], home: str
) -> None:
    (bundle.rootfs / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nshort:x:14\ntwelve:x:12:0::/home/twelve:/bin/sh\n"
    )
    bundle.config["process"]["user"] = {"uid": uid, "gid": 0}
    bundle.config["process"]["env"] += given
    assert containers.output(bundle, "echo $HOME") == f"{home}\n"


@pytest.mark.parametrize("kind", ["nothing", "a pipe", "a device", "a way to the host"])
def test_a_passwd_that_is_no_file_hinders_nobody(containers: Containers, bundle: Bundle, kind: str) -> None:
    if kind == "a pipe":
        os.mkfifo(bundle.rootfs / "etc/passwd")
    elif kind == "a device":
        (bundle.rootfs / "etc/passwd").symlink_to("/dev/zero")
    elif kind == "a way to the host":
        # Through a descriptor of the host's it would be the same kind of link.
        (bundle.rootfs / "etc/passwd").symlink_to("/proc/self/root/etc/accounts")
        (bundle.rootfs / "etc/accounts").write_text("root:x:0:0::/elsewhere:/bin/sh\n")
    assert containers.output(bundle, "echo $HOME") == "/\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"user": {"uid": 5, "gid": 0}},
            "process.user 5:0: Invalid argument (the user namespace has no mapping",
        ),
        ({"oomScoreAdj": -999}, "process.oomScoreAdj -999: Permission denied"),
    ],
)
def test_what_an_ordinary_user_cannot_have_is_an_error(
    containers: Containers, ordinary_bundle: Bundle, change: dict[str, Any], said: str
) -> None:
    ordinary_bundle.config["process"].update(change)
    ordinary_bundle.save()
    done = containers.run(ordinary_bundle, ordinary=True)
    assert done.returncode == 125
    assert done.stderr.startswith(f"ocitool-runtime: {said}")


def test_only_the_root_is_read_only(containers: Containers, bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    shown = containers.output(bundle, "echo > /x || echo no; echo > /dev/shm/x && echo yes")
    assert shown == "no\nyes\n"


def test_namespaces_of_another_container_are_joined(containers: Containers, bundle: Bundle) -> None:
    pid = containers.started(bundle.shell("sleep 60"), f"{OURS}-pod")
    bundle.config["linux"]["namespaces"] = [
        {"type": "mount"},
        *[{"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in
          (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"))],
    ]  # fmt: skip
    bundle.config.pop("hostname")
    names = ("net", "ipc", "uts", "pid")
    shown = containers.output(bundle, "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done")
    assert shown.splitlines() == [str(Path(f"/proc/{pid}/ns/{name}").readlink()) for name in names]


def test_a_path_that_is_no_such_namespace_is_an_error(containers: Containers, bundle: Bundle) -> None:
    for path in ("/proc/self/ns/ipc", "/etc/passwd", "/nonexistent"):
        for entry in bundle.config["linux"]["namespaces"]:
            if entry["type"] == "network":
                entry["path"] = path
        bundle.save()
        done = containers.run(bundle)
        assert done.returncode == RunError.exit_code
        assert path in done.stderr


def test_a_time_namespace_moves_the_clocks(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 500}}
    shown = containers.output(bundle, "cat /proc/uptime; cat /proc/self/timens_offsets")
    assert float(shown.split()[0]) > 1_000_000
    assert shown.splitlines()[1].split() == ["monotonic", "500", "0"]


def test_an_ordinary_user_runs_a_container(containers: Containers, ordinary_bundle: Bundle) -> None:
    script = "id -u; cat /proc/self/uid_map; touch /made; stat -c %t:%T /dev/null; hostname; exit 6"
    done = containers.run(ordinary_bundle.shell(script), ordinary=True)
    assert done.returncode == 6, done.stderr
    lines = done.stdout.splitlines()
    assert (lines[0], lines[1].split(), lines[2:]) == ("0", ["0", "1000", "1"], ["1:3", "ocitool"])
    assert (ordinary_bundle.rootfs / "made").stat().st_uid == 1000


def test_an_ordinary_user_has_the_whole_life_cycle(containers: Containers, ordinary_bundle: Bundle) -> None:
    containers.started(ordinary_bundle.shell("sleep 60"), f"{OURS}-rootless", ordinary=True)
    done = containers.call("exec", f"{OURS}-rootless", "id", "-u", ordinary=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert containers.call("delete", "--force", f"{OURS}-rootless", ordinary=True).returncode == 0


def test_root_runs_a_container_in_a_user_namespace(containers: Containers, bundle: Bundle) -> None:
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    bundle.config["linux"].update({"uidMappings": mapping, "gidMappings": mapping})
    closed = bundle.path / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").write_text("seen")
    closed.chmod(0o700)
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": "closed/inner", "options": ["rbind", "ro"]}
    )
    shown = containers.output(bundle, "id -u; cat /tmp/file; stat -c %u /tmp/file")
    assert shown.splitlines() == ["0", "seen65534"]


def _receive(path: Path, received: list[tuple[int, bytes]]) -> threading.Thread:
    """Listen on a console socket in the background."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def accept() -> None:
        connection, _ = listener.accept()
        payload, ancillary, _, _ = connection.recvmsg(4096, 64)
        fds = array.array("i")
        fds.frombytes(ancillary[0][2][:4])
        received.append((fds[0], payload))
        connection.close()
        listener.close()

    thread = threading.Thread(target=accept)
    thread.start()
    return thread


def _read_all(fd: int) -> bytes:
    found = b""
    try:
        while piece := os.read(fd, 4096):
            found += piece
    except OSError:
        pass  # EIO at the end of a terminal
    return found


def test_a_terminal_is_sent_to_the_console_socket(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    # The name of a socket holds 108 bytes; this path is longer.
    deep = workplace / ("d" * 60)
    deep.mkdir()
    bundle.config["process"].update({"terminal": True, "consoleSize": {"height": 21, "width": 43}})
    bundle.shell("tty; stty size 2>/dev/null || true; echo end > /dev/console; sleep 0.2; exit 4")
    received: list[tuple[int, bytes]] = []
    thread = _receive(deep / "s", received)
    path = str(deep / "s")
    assert (
        containers.call(
            "create", "--bundle", str(bundle.path), "--console-socket", path, f"{OURS}-tty"
        ).returncode
        == 0
    )
    thread.join(60)
    master, payload = received[0]
    assert payload == b"/dev/pts/0"
    assert containers.call("start", f"{OURS}-tty").returncode == 0
    shown = _read_all(master)
    os.close(master)
    assert shown.startswith(b"/dev/pts/0\r\n")
    assert b"end\r\n" in shown


def test_a_terminal_in_the_foreground(containers: Containers, bundle: Bundle) -> None:
    bundle.config["process"]["terminal"] = True
    bundle.shell("tty; read line; echo got $line; exit 5")
    master, slave = pty.openpty()
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-front")
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    shown = b""
    while b"/dev/pts/0" not in shown:  # from then on the terminal is the container's
        shown += os.read(master, 4096)
    os.write(master, b"hello\r")
    shown += _read_all(master)
    os.close(master)
    assert process.wait(timeout=60) == 5
    assert b"got hello" in shown


def test_a_terminal_needs_somewhere_to_go(containers: Containers, bundle: Bundle, workplace: Path) -> None:
    bundle.config["process"]["terminal"] = True
    bundle.save()
    assert containers.call("create", "--bundle", str(bundle.path), f"{OURS}-x").returncode == 14
    bundle.config["process"]["terminal"] = False
    bundle.save()
    socket_option = ("--console-socket", str(workplace / "s"))
    words = ("create", "--bundle", str(bundle.path), *socket_option, f"{OURS}-x")
    assert containers.call(*words).returncode == 14
    containers.started(bundle.shell("exec sleep 60"), f"{OURS}-x")
    assert containers.call("exec", *socket_option, f"{OURS}-x", "true").returncode == 14


def test_run_bundle_works_from_a_process_with_threads(bundle: Bundle, containers: Containers) -> None:
    waiter = threading.Event()
    thread = threading.Thread(target=waiter.wait)
    thread.start()
    try:
        root = str(containers.root)
        assert run_bundle(str(bundle.shell("exit 7").path), root=root) == 7
        bundle.config["process"]["args"] = ["missing"]
        bundle.save()
        with pytest.raises(RunError, match="executable file not found") as caught:
            run_bundle(str(bundle.path), root=root)
        assert caught.value.exit_code == 127
        with pytest.raises(NotFound):
            run_bundle("/nonexistent", root=root)
        assert containers.remembered() == []
    finally:
        waiter.set()
        thread.join()


@pytest.mark.parametrize("readonly", [False, True])
def test_layers_are_put_together_in_the_containers_own_mount_namespace(
    bundle: Bundle, containers: Containers, workplace: Path, *, readonly: bool
) -> None:
    layers = [workplace / name for name in ("top", "middle:with,marks")]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / "which").write_text(f"layer {number}")
    lower = [*map(str, layers), str(bundle.rootfs.rename(workplace / "base"))]
    bundle.rootfs.mkdir()
    for name in ("proc", "sys", "dev"):
        assert (workplace / "base" / name).is_dir()
    overlay = Overlay(str(bundle.rootfs), lower, readonly=readonly)
    result = workplace / "result"
    result.mkdir()
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(result), "options": ["bind", "rw"]}
    )
    bundle.shell("cat /which > /tmp/which; echo changed > /which && echo yes > /tmp/changed; exit 3")
    assert run_bundle(str(bundle.path), root=str(containers.root), overlay=overlay) == 3
    assert (result / "which").read_text() == "layer 0"
    assert (result / "changed").exists() is not readonly
    assert (layers[0] / "which").read_text() == "layer 0"
    assert list(bundle.rootfs.iterdir()) == []


def test_many_layers_at_paths_that_are_too_long_for_an_option_are_put_together(
    bundle: Bundle, containers: Containers, workplace: Path
) -> None:
    deep = workplace / ("d" * 200) / ("e" * 200)
    layers = [deep / f"{number},:\\" for number in range(100)]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"f{number}").touch()
    base = bundle.rootfs.rename(deep / "base")
    for path in (bundle.rootfs, deep / "upper", deep / "work"):
        path.mkdir()
    bundle.shell("set -- /f*; echo changed > /new; exit $#")
    lower = [*map(str, layers), str(base)]
    overlay = Overlay(str(bundle.rootfs), lower, upper=str(deep / "upper"), work=str(deep / "work"))
    assert run_bundle(str(bundle.path), root=str(containers.root), overlay=overlay) == 100
    assert (deep / "upper" / "new").read_text() == "changed\n"


def test_features_version_and_spec(containers: Containers, workplace: Path) -> None:
    features: dict[str, Any] = json.loads(containers.call("features").stdout)
    assert features["ociVersionMax"] == "1.3.0"
    version = containers.call("--version").stdout.splitlines()
    assert [line.split()[0] for line in version] == ["ocitool-runtime", "commit:", "spec:"]
    assert containers.call("spec", "--bundle", str(workplace)).returncode == 0
    assert containers.call("spec", "--bundle", str(workplace)).returncode == Conflict.exit_code
    assert json.loads((workplace / "config.json").read_text())["process"]["args"] == ["sh"]


@pytest.mark.parametrize(
    "words", [["checkpoint", "x"], ["checkpoint", "--image-path", "/x", "--leave-running", "x"],
              ["restore", "--image-path", "/x", "--bundle", ".", "x"]],
)  # fmt: skip
def test_checkpoints_are_refused_by_that_name_whatever_their_options(
    containers: Containers, words: list[str]
) -> None:
    done = containers.call(*words)
    assert (done.returncode, "checkpoint and restore are not supported" in done.stderr) == (16, True)


def test_a_paused_container_is_not_started(containers: Containers, bundle: Bundle) -> None:
    bundle.shell("exec sleep 60")
    assert containers.call("create", "--bundle", str(bundle.path), f"{OURS}-paused").returncode == 0
    assert containers.call("pause", f"{OURS}-paused").returncode == 0
    done = containers.call("start", f"{OURS}-paused")
    assert (done.returncode, "is paused, not created" in done.stderr) == (Conflict.exit_code, True)
    assert containers.call("resume", f"{OURS}-paused").returncode == 0
    assert containers.state(f"{OURS}-paused")["status"] == "created"
    assert containers.call("start", f"{OURS}-paused").returncode == 0


@pytest.mark.parametrize("text", ["{", '{"a" 1}', '{"a": "', "[1", "nul", '{"a": "\\x"}'])
def test_a_document_that_is_no_json_is_told_in_a_sentence(
    containers: Containers, bundle: Bundle, text: str
) -> None:
    (bundle.path / "config.json").write_text(text)
    done = containers.run(bundle)
    assert (done.returncode, done.stderr.count("\n")) == (14, 1), done.stderr
    assert "config.json is not valid JSON: " in done.stderr


def test_a_mount_on_the_root_directory_is_refused(containers: Containers, bundle: Bundle) -> None:
    elsewhere = {"destination": "/x/..", "type": "bind", "source": "/tmp", "options": ["rbind"]}
    bundle.config["mounts"].insert(0, elsewhere)
    bundle.save()
    done = containers.run(bundle)
    assert (done.returncode, "would hide the root file system" in done.stderr) == (16, True)
    assert containers.remembered() == []


def test_a_signal_that_comes_too_late_is_told_in_containerds_words(
    containers: Containers, bundle: Bundle
) -> None:
    containers.started(bundle.shell("true"), f"{OURS}-late")
    containers.wait_for(f"{OURS}-late", "stopped")
    done = containers.call("kill", f"{OURS}-late", "TERM")
    assert (done.returncode, "container not running" in done.stderr) == (Conflict.exit_code, True)


def test_what_a_bundle_calls_itself_does_not_move_the_callers_cursor(
    containers: Containers, bundle: Bundle
) -> None:
    bundle.config["process"]["args"] = ["/not\x1b[2J\nthere\u202e"]
    bundle.save()
    told = containers.run(bundle).stderr
    assert told == r"ocitool-runtime: exec /not\x1b[2J\nthere\u202e: no such file or directory" + "\n"


def test_capabilities_that_no_process_can_have_are_left_out_and_told(
    containers: Containers, bundle: Bundle
) -> None:
    bundle.config["process"]["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL", "CAP_FOWNER"],
        "inheritable": ["CAP_KILL", "CAP_SETGID"],
        "ambient": ["CAP_KILL", "CAP_CHOWN"],
    }
    done = containers.run(bundle.shell("grep -E 'Cap(Inh|Amb)' /proc/self/status"))
    assert done.stdout == "CapInh:\t0000000000000020\nCapAmb:\t0000000000000020\n", done.stderr
    assert [line.partition("warning: ")[2] for line in done.stderr.splitlines()] == [
        f"{kind} capabilities were left out, which would have to be {others} as well: {name}"
        for kind, others, name in (
            ("effective", "permitted", "CAP_FOWNER"),
            ("inheritable", "bounding", "CAP_SETGID"),
            ("ambient", "permitted and inheritable", "CAP_CHOWN"),
        )
    ]


def test_an_unknown_capability_is_told_once(containers: Containers, bundle: Bundle) -> None:
    containers.started(bundle.shell("exec sleep 60"), f"{OURS}-once")
    done = containers.call("exec", "--cap", "CAP_ODD", f"{OURS}-once", "true")
    assert (done.returncode, done.stderr.count("CAP_ODD")) == (0, 1), done.stderr


def test_errors_go_to_the_engines_log(containers: Containers, workplace: Path) -> None:
    log = workplace / "log"
    done = containers.call(
        "--log", str(log), "--log-format", "json", "create", "--bundle", "/nonexistent", f"{OURS}-x"
    )
    record = json.loads(log.read_text())
    assert (record["level"], record["msg"] in done.stderr) == ("error", True)
    assert "no such file or directory" in record["msg"]


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["run", "--nonsense", "x"],
        ["kill", "x", "NOSUCH"],
        ["state"],
        ["state", ""],
        ["run", "--bundle"],
        ["state", "x", "y"],
        ["kill", "x", "TERM", "y"],
        ["list", "x"],
        ["list", "--format", "yaml"],
        ["ps", "--format", "yaml", "x"],
        ["exec", "x"],
        ["exec", "--cgroup"],
        ["--log-format", "xml", "list"],
        ["events", "--interval", "0s", "x"],
        ["events", "--interval", "-1s", "x"],
        ["events", "--interval", "nan", "x"],
    ],
)
def test_a_command_line_that_is_wrong_is_refused(containers: Containers, words: list[str]) -> None:
    done = containers.call(*words)
    assert (done.returncode, done.stdout) in ((2, ""), (14, "")), done
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["create", "--help"], ["exec", "-h"], ["update", "-h", "x"]])
def test_help_names_the_options(containers: Containers, words: list[str]) -> None:
    done = containers.call(*words)
    assert done.returncode == 0
    assert "options: --" in done.stdout
    assert all(f" {word} " in done.stdout for word in words if word[0] != "-" and len(word) > 1)


def test_a_container_without_a_process_cannot_be_run_at_all(containers: Containers, bundle: Bundle) -> None:
    del bundle.config["process"]
    bundle.save()
    done = containers.run(bundle)
    assert (done.returncode, "has no process" in done.stderr) == (14, True)
    assert containers.remembered() == []


def test_a_further_process_can_wait_in_a_paused_container(containers: Containers, bundle: Bundle) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-frozen")
    assert containers.call("pause", f"{OURS}-frozen").returncode == 0
    assert containers.call("exec", f"{OURS}-frozen", "true").returncode == 17
    command = containers.command("exec", "--ignore-paused", f"{OURS}-frozen", "sh", "-c", "echo late; exit 3")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        assert containers.call("resume", f"{OURS}-frozen").returncode == 0
        assert waiting.communicate(timeout=60)[0] == "late\n"
    assert waiting.returncode == 3


def test_a_further_process_can_be_put_below_the_containers_cgroup(
    containers: Containers, bundle: Bundle
) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-below")
    saved = json.loads((containers.root / f"{OURS}-below/state.json").read_text())["cgroup"]["directories"]
    for directory in saved.values():
        below = Path(directory, "below")
        below.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            if Path(directory, name).exists() and not VERSION_2_ALONE:
                (below / name).write_text(Path(directory, name).read_text())
    done = containers.call("exec", "--cgroup", "/below", f"{OURS}-below", "cat", "/proc/self/cgroup")
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stdout.splitlines() if "below" in line]
    assert len(ours) >= len(saved)
    names = next(names for names in saved if names or VERSION_2_ALONE)
    one = containers.call(
        "exec", "--cgroup", f"{names.split(',')[0]}:below", f"{OURS}-below", "cat", "/proc/self/cgroup"
    )
    assert [line.endswith("/below") for line in one.stdout.splitlines()].count(True) == 1, one
    if "cpuset" in saved:  # version 1's takes nobody before it has processors
        Path(saved["cpuset"], "empty").mkdir()
        done = containers.call("exec", "--cgroup", "cpuset:empty", f"{OURS}-below", "true")
        assert (done.returncode, "the cgroup takes no process: No space" in done.stderr) == (125, True), (
            done.stderr
        )
    for wrong in ("../..", "nonsense:below", "missing"):
        assert containers.call("exec", "--cgroup", wrong, f"{OURS}-below", "true").returncode in (14, 125)


def test_every_limit_that_has_an_option_can_be_changed(containers: Containers, bundle: Bundle) -> None:
    containers.started(bundle.shell("sleep 60"), f"{OURS}-limits")
    words = "--memory 64m --memory-reservation 32m --cpu-share 512 --cpu-period 50000 --cpu-quota 20000"
    done = containers.call(
        "update", *words.split(), "--pids-limit", "55", "--cpu-burst", "1000", f"{OURS}-limits"
    )
    assert done.returncode == 0, done.stderr
    saved = json.loads((containers.root / f"{OURS}-limits/state.json").read_text())["cgroup"]["directories"]
    files = ("cpu.max.burst", "pids.max") if VERSION_2_ALONE else ("cpu.cfs_burst_us", "pids.max")
    found = {
        name: path.read_text().strip()
        for directory in saved.values()
        for name in files
        if (path := Path(directory, name)).exists()
    }
    assert found == dict(zip(files, ("1000", "55"), strict=True))


def test_sockets_that_were_opened_for_the_program_are_passed_on(
    containers: Containers, bundle: Bundle
) -> None:
    listener = socket.socket()
    saved = os.dup(3) if Path("/proc/self/fd/3").exists() else -1
    try:
        os.dup2(listener.fileno(), 3, inheritable=True)
        environment = {"PATH": "/bin:/usr/bin", "LISTEN_FDS": "1"}
        bundle.shell("echo $LISTEN_FDS $LISTEN_PID; readlink /proc/self/fd/3")
        done = containers.run(bundle, env=environment, pass_fds=(3,))
    finally:
        os.close(3)
        if saved >= 0:
            os.dup2(saved, 3)
            os.close(saved)
        listener.close()
    assert done.stdout.splitlines()[0] == "1 1"
    assert "socket:" in done.stdout


def test_a_container_can_do_without_a_cgroup(containers: Containers, bundle: Bundle) -> None:
    """It stays in its caller's."""
    bundle.shell("sleep 60")
    words = ("--cgroup-manager", "disabled", "create", "--bundle", str(bundle.path), f"{OURS}-none")
    assert containers.call(*words).returncode == 0
    pid = containers.state(f"{OURS}-none")["pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path("/proc/self/cgroup").read_text()


def test_a_cgroup_that_was_there_before_serves_one_container_after_another(
    containers: Containers, bundle: Bundle
) -> None:
    """On Linux 6.18, what is cloned into a cgroup that cgroup.kill has emptied dies at once."""
    made = [
        Path(hierarchy.mount_point, f"ocitool-{OURS}-reused")
        for hierarchy in newcgroup.own_hierarchies()
        if hierarchy.unified
    ]
    bundle.config["linux"]["cgroupsPath"] = f"/ocitool-{OURS}-reused"
    bundle.shell("exit 7")
    for directory in made:
        directory.mkdir()
    try:
        assert [containers.run(bundle).returncode for _ in range(3)] == [7, 7, 7]
    finally:
        for directory in made:
            directory.rmdir()


@pytest.mark.parametrize("ordinary", [False, True])
def test_a_created_container_is_small(
    containers: Containers, bundle: Bundle, ordinary_bundle: Bundle, *, ordinary: bool
) -> None:
    """At most 8 MB resident and 4 MiB of its own, soon after `create`; it can be started all the same."""
    path = (ordinary_bundle if ordinary else bundle.shell("exit 0")).path
    done = containers.call("create", "--bundle", str(path), f"{OURS}-small", ordinary=ordinary)
    assert done.returncode == 0, done.stderr
    pid = containers.state(f"{OURS}-small", ordinary=ordinary)["pid"]
    until(lambda: _memory(pid)["Rss"] <= 8_000_000 >> 10)
    sizes = _memory(pid)
    assert sizes["Private_Dirty"] <= 4 << 10, sizes
    assert containers.call("start", f"{OURS}-small", ordinary=ordinary).returncode == 0


def _memory(pid: int) -> dict[str, int]:
    """Sizes in KiB, by the kernel's names."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {row[0].rstrip(":"): int(row[1]) for row in rows}


def test_an_ordinary_user_runs_layers(ordinary_bundle: Bundle, containers: Containers) -> None:
    base = ordinary_bundle.rootfs.rename(ordinary_bundle.path / "base")
    ordinary_bundle.rootfs.mkdir()
    ordinary_bundle.shell("echo x > /new && cat /new; exit 8")
    script = f"""
import sys
sys.path.append({str(Path(MAIN).parents[2])!r})
from ocitool.run import Overlay, run_bundle
layers = Overlay({str(ordinary_bundle.rootfs)!r}, [{str(base)!r}], userxattr=True)
sys.exit(run_bundle({str(ordinary_bundle.path)!r}, root={str(containers.ordinary_root)!r}, overlay=layers))
"""
    done = subprocess.run(
        [PYTHON, "-I", "-c", script], user=ORDINARY, group=ORDINARY, extra_groups=[], capture_output=True,
        text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (8, "x\n"), done.stderr
    assert not (base / "new").exists()
