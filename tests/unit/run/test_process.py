"""The order of the last steps before a program, recorded by a kernel that does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support.run_kernel import Executed, RecordingKernel

from ocitool.errors import RunError
from ocitool.run import capabilities, process, records
from ocitool.run.process import Entry
from ocitool.run.seccomp_cache import Filter
from ocitool.run.starting import Child


@pytest.fixture
def kernel() -> RecordingKernel:
    return RecordingKernel()


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Entry]:
    """An entry with a report that goes nowhere; working directory and mask stay as they are."""
    monkeypatch.setattr("ocitool.run.process.enter_directory", lambda _: True)
    monkeypatch.setattr("ocitool.run.process.trampoline.sealed", lambda *_: 100)
    mask = os.umask(0)
    os.umask(mask)
    proc, report = os.open("/proc", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
    yield Entry(proc, report, Filter(b""))
    os.umask(mask)
    os.close(proc)
    os.close(report)


def _process(**more: Any) -> dict[str, Any]:
    return {"args": ["/bin/true"], "cwd": "/", "env": ["A=b"], "user": {"uid": 5, "gid": 6}, **more}


def _after(names: list[str], first: str) -> list[str]:
    return names[names.index(first) + 1 :]


def test_descriptors_are_marked_before_the_identity_is_taken(kernel: RecordingKernel, entry: Entry) -> None:
    entry.preserve = 2
    with pytest.raises(Executed):
        process.finish(kernel, _process(), entry)
    names = kernel.names()
    assert ("close_range", (5, 0xFFFFFFFF, 4)) in kernel.calls
    assert "set_ids" in _after(names, "close_range")
    assert "capset" in _after(names, "set_ids")
    assert names[-1] == "execveat"


def test_rn_18_who_has_changed_the_user_is_closed_to_others_again(
    kernel: RecordingKernel, entry: Entry
) -> None:
    """A host whose /proc/sys/fs/suid_dumpable is 1 opens whoever changes its user."""
    with pytest.raises(Executed):
        process.finish(kernel, _process(), entry)
    calls = kernel.calls
    assert ("prctl", (4, 0)) in calls[kernel.names().index("set_ids") :]


def test_the_bounding_set_is_dropped_while_that_is_still_allowed(
    kernel: RecordingKernel, entry: Entry
) -> None:
    listed = {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}
    with pytest.raises(Executed):
        process.finish(kernel, _process(capabilities=listed), entry)
    dropped = [arguments[1] for name, arguments in kernel.calls if name == "prctl" and arguments[0] == 24]
    assert dropped == list(range(1, 41))
    identity = kernel.names().index("set_ids")
    assert all(
        at < identity for at, call in enumerate(kernel.calls) if call[0] == "prctl" and call[1][0] == 24
    )
    assert ("capset", (1, 1, 0)) in kernel.calls


def test_with_no_new_privileges_the_filter_is_the_last_step(kernel: RecordingKernel, entry: Entry) -> None:
    entry.filter = Filter(b"12345678")
    with pytest.raises(Executed):
        process.finish(kernel, _process(noNewPrivileges=True), entry)
    assert kernel.names()[-2:] == ["seccomp", "execveat"]
    assert kernel.calls[-3] == ("prctl", (38, 1))


def test_without_it_the_filter_comes_before_the_capabilities_go(
    kernel: RecordingKernel, entry: Entry
) -> None:
    entry.filter = Filter(b"12345678")
    with pytest.raises(Executed):
        process.finish(kernel, _process(), entry)
    names = kernel.names()
    at = names.index("seccomp")
    # CAP_SYS_ADMIN is in force when the filter is loaded, and gone when the program starts.
    assert kernel.calls[at - 1] == ("capset", (kernel.held, kernel.held, 0))
    assert kernel.calls[at + 1] == ("capset", (0, 0, 0))


def test_a_filter_that_is_refused_is_an_error(kernel: RecordingKernel, entry: Entry) -> None:
    entry.filter = Filter(b"12345678")
    kernel.refuse["seccomp"] = 22
    with pytest.raises(RunError, match="seccomp filter"):
        process.finish(kernel, _process(), entry)
    assert "execveat" not in kernel.names()


def test_capabilities_that_the_runtime_lacks_are_left_out_with_a_warning() -> None:
    kernel = RecordingKernel()
    said: list[str] = []
    kernel.held = 0b101
    names = {kind: list(capabilities.NAMES[:3]) for kind in ("bounding", "effective", "permitted", "ambient")}
    sets = capabilities.Sets({**names, "inheritable": names["ambient"]}, said.append)
    capabilities.apply(kernel, sets, said.append)
    # The inheritable set may keep what is permitted to the process or was meant to be.
    assert [arguments[:2] for name, arguments in kernel.calls if name == "capset"] == [(0b101, 0b101)]
    assert said == ["capabilities not held by the runtime were left out: CAP_DAC_OVERRIDE"]


def test_an_unknown_capability_is_a_warning() -> None:
    said: list[str] = []
    sets = capabilities.Sets(
        {kind: ["CAP_NONSENSE", "CAP_KILL"] for kind in ("bounding", "permitted")}, said.append
    )
    assert sets.bounding == sets.permitted == 1 << 5
    assert said == ["capability CAP_NONSENSE is not known and was left out"]


def test_there_are_no_capabilities_without_the_object() -> None:
    sets = capabilities.Sets(None, pytest.fail)
    assert (sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient) == (0,) * 5


@pytest.mark.parametrize(
    ("name", "environment", "found"),
    [
        ("true", ["PATH=/nonexistent:/bin"], "/bin/true"),
        ("true", ["PATH=/usr/bin", "PATH=/bin"], "/bin/true"),
        ("./x", [], "./x"),
        ("true", [], "/usr/bin/true"),
    ],
)
def test_the_program_is_looked_up_in_the_containers_path(
    name: str, environment: list[str], found: str
) -> None:
    assert process.find_program({"args": [name], "env": environment}) == found


@pytest.mark.parametrize(("name", "code"), [("no-such-program", 127), ("", 127)])
def test_a_program_that_is_nowhere(name: str, code: int) -> None:
    with pytest.raises(RunError) as caught:
        process.find_program({"args": [name], "env": ["PATH=/bin"]})
    assert caught.value.exit_code == code


def test_limits_are_64_bit_numbers_and_minus_one_is_infinity() -> None:
    kernel = RecordingKernel()
    process.set_limits(kernel, [{"type": "RLIMIT_CORE", "soft": 0, "hard": -1}])
    assert kernel.calls == [("prlimit", (4, 0, 0xFFFFFFFFFFFFFFFF))]


def test_a_child_that_has_ended_before_it_is_let_go_is_left_to_say_why() -> None:
    reports, report = os.pipe()
    ended, go = os.pipe()
    os.close(ended)
    records.write(report, records.failure(RunError("why")))
    os.close(report)
    child = Child(0, records.Reader(reports, "program", pytest.fail), go)
    child.release()
    with pytest.raises(RunError, match="why"):
        child.reader.wait()
    os.close(reports)
