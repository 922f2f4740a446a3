"""The command line among other programs: pipes, closed streams, signals, registries with passwords."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from support.command import Ocitool
from support.disks import small_disk
from support.fixtures import digests, layout
from support.registry_faults import FaultProxy, Faults
from support.registry_process import PASSWORD, USER
from support.run_bundles import OURS
from support.waiting import until

from ocitool.console import size
from ocitool.run.state import State
from ocitool.unpack.room import occupied

IMAGE = f"oci:{layout()}:hello:1.0"


def shell(ocitool: Ocitool, script: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A shell script in which `ocitool` is the command."""
    done = subprocess.run(
        ["sh", "-c", f'ocitool() {{ "{sys.executable}" -m ocitool "$@"; }}\n{script}'],
        capture_output=True, text=True, env=ocitool.environment, cwd=ocitool.home, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
    return done


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_nobody_who_listens(ocitool: Ocitool, closed: str) -> None:
    """Above all no file that the command opens takes the stream's place, and gets what is printed."""
    shell(ocitool, f"ocitool copy {IMAGE} oci:copy:1 {closed}")
    assert ocitool("check", "oci:copy:1").code == 0
    assert ocitool("digest", "oci:copy:1").result == digests()["hello:1.0"]


def test_a_container_runs_with_its_output_closed(ocitool: Ocitool) -> None:
    shell(ocitool, f"ocitool run {IMAGE} exit 7 >&- 2>&-", code=7)


def test_a_result_that_can_not_be_written_is_an_error(ocitool: Ocitool) -> None:
    told = shell(ocitool, f"ocitool digest {IMAGE} >/dev/full", code=1).stderr
    assert told == "ocitool: the result can't be written to stdout: No space left on device\n"


def test_a_reader_that_has_enough_is_no_error(ocitool: Ocitool) -> None:
    done = shell(ocitool, f"ocitool tags oci:{layout()} | head -n 1")
    assert done.stdout == "artifact:1.0\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["tags", f"oci:{layout()}"],
        ["inspect", IMAGE],
        ["copy", IMAGE, "oci-archive:-"],
        ["--help"],
        ["run", IMAGE],
    ],
)
def test_who_writes_to_a_reader_that_is_gone_exits_as_if_it_were_there(
    ocitool: Ocitool, arguments: list[str]
) -> None:
    """With `set -o pipefail` a job would end where `head` has seen enough."""
    assert piped(ocitool, arguments, "stdout") == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["copy", IMAGE, "oci:copy:1"], 0),
        (["--progress", "json", "copy", IMAGE, "oci:copy:1"], 0),
        (["digest", "oci:nowhere"], 10),
        (["nonsense"], 2),
    ],
)
def test_a_log_that_nobody_reads_any_more_stops_nothing(
    ocitool: Ocitool, arguments: list[str], code: int
) -> None:
    assert piped(ocitool, arguments, "stderr") == code
    if not code:
        assert ocitool("digest", "oci:copy:1").result == digests()["hello:1.0"]


def piped(ocitool: Ocitool, arguments: list[str], stream: str) -> int:
    """The exit code of a command that writes a stream into a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "ocitool", *arguments],
            stdout=writer if stream == "stdout" else subprocess.DEVNULL,
            stderr=writer if stream == "stderr" else subprocess.DEVNULL,
            env=ocitool.environment, cwd=ocitool.home, check=False, timeout=60,
        ).returncode  # fmt: skip
    finally:
        os.close(writer)


def test_an_archive_goes_from_one_process_to_the_next(ocitool: Ocitool) -> None:
    script = f"ocitool copy {IMAGE} oci-archive:- | ocitool --quiet copy oci-archive:- oci:piped:1"
    assert shell(ocitool, script).stdout == digests()["hello:1.0"] + "\n"


@pytest.mark.registry
def test_each_side_of_a_copy_has_its_own_credentials(
    ocitool: Ocitool, guarded: str, open_registry: str, tmp_path: Path
) -> None:
    there, here = f"{guarded}/app:1", f"{open_registry}/app:1"
    ocitool("copy", "--dest-username", USER, "--dest-password-stdin", IMAGE, there, stdin=PASSWORD)
    ocitool("copy", "--dest-username", USER, "--dest-password-stdin", there, here, stdin=PASSWORD, code=11)
    given = ("--src-username", USER, "--src-password-stdin")
    assert ocitool("copy", *given, there, here, stdin=PASSWORD).result == digests()["hello:1.0"]
    ocitool("login", "--authfile", tmp_path / "auth.json", "-u", USER, "--password-stdin", guarded,
            stdin=PASSWORD)  # fmt: skip
    ocitool("copy", "--src-authfile", tmp_path / "auth.json", there, f"oci:{tmp_path}/back:1")
    ocitool("copy", "--dest-authfile", tmp_path / "auth.json", there, f"oci:{tmp_path}/none:1", code=11)


@pytest.mark.root
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    ocitool: Ocitool, tmp_path: Path
) -> None:
    with small_disk(tmp_path, "16k") as small:
        told = ocitool("--quiet", "copy", IMAGE, f"oci-archive:{small}/image.tar", code=1).err
        assert "No space left on device" in told
        assert str(small) in told
        assert not list(small.iterdir())


def containers(ocitool: Ocitool) -> list[str]:
    return [path.name for path in (ocitool.home / "containers").iterdir()]


def test_an_image_is_unpacked_for_the_first_run_alone(ocitool: Ocitool) -> None:
    ocitool("run", IMAGE)
    place = ocitool.home / f"store.prepared-{os.geteuid()}"
    made = {path: path.stat().st_ino for path in place.glob("*/*/*/diff")}
    assert len(made) == 2
    assert "Hello" in ocitool("run", IMAGE).out
    assert {path: path.stat().st_ino for path in place.glob("*/*/*/diff")} == made
    assert containers(ocitool) == []


def test_a_bundle_is_found_by_what_unpack_prints_though_its_name_is_not_utf_8(ocitool: Ocitool) -> None:
    script = f"""bundle="$(printf 'b\\377')"; test "$(ocitool unpack {IMAGE} "$bundle")" = "$bundle" """
    shell(ocitool, script)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount an overlay by hand")
def test_a_bundle_on_cached_layers_runs_and_can_be_mounted_for_other_runtimes(ocitool: Ocitool) -> None:
    ocitool("unpack", "--layer-cache", "cache", IMAGE, "one")
    again = ocitool("unpack", "--layer-cache", "cache", IMAGE, "two")
    assert again.err == "2 there already\n"
    assert "Hello" in ocitool("run", "./one").out
    assert list((ocitool.home / "one" / "rootfs").iterdir()) == []
    stack = json.loads((ocitool.home / "two" / "layers.json").read_bytes())
    options = f"lowerdir={':'.join(stack['lowers'])}"
    rootfs = ocitool.home / "two" / "rootfs"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, rootfs], check=True)
    try:
        assert (rootfs / "hello").exists()
    finally:
        subprocess.run(["umount", rootfs], check=True)
    told = ocitool("repack", IMAGE, "one", "new", code=16).err
    assert "layer cache" in told
    shutil.rmtree(ocitool.home / "cache")
    assert "is gone" in ocitool("run", "./one", code=125).err
    assert containers(ocitool) == []


def test_what_a_container_writes_is_gone_for_the_next_one(ocitool: Ocitool, debian_layout: Path) -> None:
    image = f"oci:{debian_layout}:12"
    change = "echo new >/new; rm -r /etc/passwd /usr/share/doc; touch /etc/shadow; stat -c '%a %u' /"
    changed = ocitool("run", image, "--", "sh", "-c", change)
    assert changed.out == "755 0\n"
    look = "ls /new; head -n 1 /etc/passwd; ls -d /usr/share/doc; id -nu"
    seen = ocitool("run", "--user", "daemon", image, "--", "sh", "-c", look)
    assert seen.out.splitlines() == ["root:x:0:0:root:/root:/bin/bash", "/usr/share/doc", "daemon"]
    assert ocitool("run", "--read-only", image, "touch", "/new", code=1).out == ""
    assert containers(ocitool) == []


def test_gc_takes_what_was_unpacked_with_its_image(ocitool: Ocitool) -> None:
    ocitool("copy", f"oci:{layout()}:layers:1.0", "store:example.test/layers:1.0")
    ocitool("run", "--pull", "never", "example.test/layers:1.0")
    place = ocitool.home / f"store.prepared-{os.geteuid()}"
    ocitool("store", "gc", "--delete")
    image = digests()["layers:1.0"].replace(":", "-")
    # What a name means is remembered as well, where the name had been there for a while.
    assert {path.name for path in place.iterdir()} - {"names.json"} == {"layers", image}
    ocitool("delete", "store:example.test/layers:1.0")
    trees = [place / image, *filter(Path.is_dir, place.glob("layers/*/*"))]
    assert len(trees) == 2
    blobs = sum(path.stat().st_size for path in (ocitool.home / "store" / "blobs").glob("*/*"))
    freed = blobs + sum(map(occupied, trees))
    assert json.loads(ocitool("store", "gc", "--format", "json").out)["size"] == freed
    told = ocitool("store", "gc", "--delete")
    assert f"{digests()['layers:1.0']}  unpacked\n" in told.out
    assert f"{size(freed)} deleted" in told.err
    assert {path.name for path in place.rglob("*")} - {"names.json"} == {"layers", "owned"}


def test_a_store_s_gc_leaves_alone_what_its_neighbour_has_unpacked(ocitool: Ocitool) -> None:
    for store in ("one", "two"):
        ocitool("copy", "--store", store, IMAGE, "store:example.test/hello:1")
        ocitool("run", "--store", store, "--pull", "never", "example.test/hello:1")
    ocitool("delete", "--store", "one", "store:example.test/hello:1")
    assert "unpacked" in ocitool("store", "gc", "--store", "one", "--delete").out
    assert "unpacked" not in ocitool("store", "gc", "--store", "two", "--delete").out
    assert list(ocitool.home.glob(f"two.prepared-{os.geteuid()}/layers/*/*/diff"))


@pytest.mark.parametrize("name", ["bad/name", "../name", "..", "a b"])
def test_a_name_that_is_no_id_is_refused_before_it_is_part_of_a_path(ocitool: Ocitool, name: str) -> None:
    told = ocitool("run", "--name", name, IMAGE, code=125).err
    assert "is not valid" in told
    assert {path.name for path in ocitool.home.iterdir()} <= {"containers", "store"}


def test_a_name_in_use_is_told(ocitool: Ocitool) -> None:
    (ocitool.home / "containers" / "mine" / "rootfs").mkdir(parents=True)
    assert "another name" in ocitool("run", "--name", "mine", IMAGE, code=125).err
    assert containers(ocitool) == ["mine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount an overlay")
def test_where_nothing_mounts_the_layers_the_image_is_unpacked_for_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose own file system is an overlay: there the kernel keeps no changes in another."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        for name in ("lower", "upper", "work", "home"):
            (tmp_path / name).mkdir()
        options = ",".join(f"{name}dir={tmp_path}/{name}" for name in ("lower", "upper", "work"))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "home"], check=True)
        try:
            ocitool = Ocitool(tmp_path / "home")
            with monkeypatch.context() as host:
                host.setenv("PATH", "/nonexistent")  # where there is no fuse-overlayfs
                done = ocitool("run", "--name", "box", "--cidfile", "id", IMAGE)
                assert "Hello" in done.out
                assert "unpacked for this container alone" in done.err
                assert (ocitool.home / "id").read_text() == "box"
                ocitool("run", IMAGE, "exit", "7", code=7)
            assert containers(ocitool) == []
        finally:
            subprocess.run(["umount", tmp_path / "home"], check=True)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_user_who_does_not_exist_in_the_user_namespace_is_named(ocitool: Ocitool, tmp_path: Path) -> None:
    """As for an ordinary user to whom no ids are delegated."""
    ocitool("unpack", "--rootless", "--no-keep-owner", IMAGE, tmp_path / "bundle")
    told = ocitool("run", "--user", "12:0", tmp_path / "bundle", code=125).err
    assert "the user 12, who is not mapped" in told
    assert "--user 0" in told
    assert containers(ocitool) == []


@pytest.mark.registry
@pytest.mark.parametrize(("number", "code", "said"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_a_pull_that_is_ended_says_so_at_once_and_goes_on_where_it_was(
    ocitool: Ocitool, open_registry: str, debian_layout: Path, number: int, code: int, said: str
) -> None:
    image = ocitool("push", f"oci:{debian_layout}:12", f"{open_registry}/debian:12").result
    host, port = open_registry.split(":")
    # Each connection brings some megabytes and then nothing more, so a pull that goes on never ends.
    with FaultProxy((host, int(port)), Faults(lambda _: 4 << 20, "stall")).running() as slow:
        pull = subprocess.Popen(
            [sys.executable, "-m", "ocitool", "pull", f"{slow.name}/debian:12", "oci:slow"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ocitool.environment,
            cwd=ocitool.home,
        )  # fmt: skip
        partial = ocitool.home / "slow" / ".ocitool" / "partial"
        until(lambda: partial.is_dir() and any(each.stat().st_size > 1 << 20 for each in partial.iterdir()))
        pull.send_signal(number)
        out, err = pull.communicate(timeout=20)
    assert (pull.returncode, out) == (code, "")
    # On a line of its own, whether or not a fast pull had told of its progress by then.
    assert err.endswith("\n")
    assert err.splitlines()[-1] == f"ocitool: {said}"
    assert "resuming" in (again := ocitool("pull", f"{open_registry}/debian:12", "oci:slow")).err
    assert again.result == image


def test_a_signal_reaches_the_program_and_its_answer_is_the_exit_code(
    ocitool: Ocitool, debian_layout: Path
) -> None:
    program = 'trap "echo ended; exit 9" TERM; echo ready; sleep 60 & wait'
    run = subprocess.Popen(
        [sys.executable, "-m", "ocitool", "run", f"oci:{debian_layout}:12", "--", "sh", "-c", program],
        stdout=subprocess.PIPE, text=True, env=ocitool.environment, cwd=ocitool.home,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    run.terminate()
    assert run.communicate(timeout=120)[0] == "ended\n"
    assert run.returncode == 9
    assert containers(ocitool) == []


def test_a_program_with_a_terminal_has_one_of_the_callers_size(ocitool: Ocitool, debian_layout: Path) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    look = "test -t 0 && test -t 1 && test -t 2 && stty size"
    done = subprocess.run(
        [sys.executable, "-m", "ocitool", "run", "-t", f"oci:{debian_layout}:12", "--", "sh", "-c", look],
        stdin=theirs, stdout=theirs, stderr=theirs, env=ocitool.environment, cwd=ocitool.home, timeout=60,
        check=False, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert (done.returncode, said.split()) == (0, ["33", "99"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to look at the runtime's record of the container")
@pytest.mark.parametrize("delay", [0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 1.0])
def test_what_a_run_leaves_that_was_killed_is_collected_by_the_next_one(
    ocitool: Ocitool, busybox_image: str, delay: float
) -> None:
    """Killed with the runtime that it has started; the program goes on alone if it has come that far."""
    ocitool("run", IMAGE)
    command = [sys.executable, "-m", "ocitool", "run", "--name", f"{OURS}-killed", busybox_image]
    run = subprocess.Popen(
        [*command, "sleep", "60"], env=ocitool.environment, cwd=ocitool.home, process_group=0
    )
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    record = Path(f"/run/ocitool/{OURS}-killed")
    # What dies with the runtime does so a moment later.
    until(lambda: alive(record) or not is_held(ocitool.home / "containers" / f"{OURS}-killed" / "lock"))
    ocitool("run", IMAGE)
    if containers(ocitool):
        until(lambda: containers(ocitool) == [] or alive(record))
        os.kill(json.loads((record / "state.json").read_text())["pid"], signal.SIGKILL)
        until(lambda: not alive(record))
        assert f"{OURS}-killed" in ocitool("store", "gc").out
        ocitool("run", IMAGE)
    assert containers(ocitool) == []
    assert not record.exists()
    ocitool("store", "gc", "--delete")
    prepared = ocitool.home / f"store.prepared-{os.geteuid()}"
    assert [path.name for path in prepared.iterdir() if path.name.startswith(".")] == []


def alive(record: Path) -> bool:
    """Whether the runtime's record is of a container whose program runs."""
    state = record / "state.json"
    return state.exists() and State(str(record), json.loads(state.read_text())).alive()


def is_held(lock: Path) -> bool:
    """Whether somebody holds a lock."""
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
