"""Compiled filters, asked in a simulator what they would do."""

from __future__ import annotations

import ctypes
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support.peers import not_installed
from support.run_bpf import run

from ocitool.errors import InvalidContent, Unsupported
from ocitool.run import defaults, seccomp
from ocitool.run.syscalls import architectures, numbers

X86_64, X86 = 0xC000003E, 0x40000003
ALLOW, EPERM, ENOSYS, KILL_PROCESS = 0x7FFF0000, 0x50001, 0x50026, 0x80000000

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the expectations are those of x86_64")


def _filter(*rules: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> bytes:
    return seccomp.compile_filter({"defaultAction": default, "syscalls": list(rules), **more}).program


def _rule(
    names: list[str], *args: dict[str, Any], action: str = "SCMP_ACT_ALLOW", **more: Any
) -> dict[str, Any]:
    return {"names": names, "action": action, "args": list(args), **more}


def _arg(op: str, value: int, second: int = 0, index: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


def test_names_decide() -> None:
    program = _filter(_rule(["read", "exit_group", "unheard_of"]))
    assert [run(program, X86_64, number) for number in (0, 1, 231)] == [ALLOW, EPERM, ALLOW]


def test_rn_15_a_call_newer_than_the_tables_does_not_exist() -> None:
    program = _filter(_rule(["read"]))
    assert run(program, X86_64, 9999) == ENOSYS
    assert (
        run(_filter(_rule(["read"], action="SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW"), X86_64, 9999)
        == ALLOW
    )


def test_rn_15_a_call_newer_than_an_architecture_s_own_ones_does_not_exist() -> None:
    program = _filter(_rule(["set_tls"]), architectures=["SCMP_ARCH_ARM"])
    assert [run(program, 0x40000028, 0xF0005 + more) for more in (-1, 0, 1)] == [EPERM, ALLOW, ENOSYS]


def test_rn_15_other_architectures_are_killed_and_x32_does_not_exist() -> None:
    program = _filter(_rule(["read"]))
    assert run(program, X86, 3) == KILL_PROCESS
    assert run(program, 0xC00000B7, 63) == KILL_PROCESS
    assert run(program, X86_64, 0x40000000) == ENOSYS
    wide = _filter(_rule(["read"]), architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    assert run(wide, X86, 3) == ALLOW
    assert run(wide, X86_64, 0x40000000) == ALLOW
    assert run(wide, X86_64, 0x40000001) == EPERM
    # Least of all where a filter lists what it denies: x32 would be the way around it.
    denying = _filter(_rule(["read"], action="SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW")
    assert run(denying, X86_64, 0x40000000) == ENOSYS


def test_x32_alone_does_not_let_its_64_bit_calls_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "native", lambda: "AARCH64")
    program = _filter(
        _rule(["write"], action="SCMP_ACT_LOG"), default="SCMP_ACT_ALLOW", architectures=["X32"]
    )
    assert [run(program, X86_64, number) for number in (0, 0x40000000, 0x40000001)] == [
        ENOSYS,
        ALLOW,
        0x7FFC0000,
    ]


@pytest.mark.parametrize(
    ("op", "holds"),
    [
        ("NE", lambda a, v: a != v),
        ("LT", lambda a, v: a < v),
        ("LE", lambda a, v: a <= v),
        ("EQ", lambda a, v: a == v),
        ("GE", lambda a, v: a >= v),
        ("GT", lambda a, v: a > v),
    ],
)
def test_comparisons_are_of_64_bits(op: str, holds: Any) -> None:
    edges = [0, 1, 2, 0xFFFFFFFF, 0x1_00000000, 0x1_00000001, 0x2_00000000, 0xFFFFFFFF_FFFFFFFF]
    for value in edges:
        program = _filter(_rule(["read"], _arg(op, value, index=2)))
        for argument in edges:
            wanted = ALLOW if holds(argument, value) else EPERM
            assert run(program, X86_64, 0, (0, 0, argument)) == wanted, (op, value, argument)


def test_a_masked_comparison_looks_at_the_masked_bits() -> None:
    program = _filter(_rule(["clone"], _arg("MASKED_EQ", 0x3_00000001, 0x2_00000001)))
    assert run(program, X86_64, 56, (0x2_00000001,)) == ALLOW
    assert run(program, X86_64, 56, (0x6_F0000001,)) == ALLOW
    assert run(program, X86_64, 56, (0x3_00000001,)) == EPERM
    assert run(program, X86_64, 56, (0x2_00000000,)) == EPERM


def test_a_32_bit_architecture_has_32_bit_arguments() -> None:
    program = _filter(_rule(["read"], _arg("EQ", 5)), architectures=["SCMP_ARCH_X86"])
    assert run(program, X86, 3, (0x7_00000005,)) == ALLOW
    assert run(program, X86_64, 0, (0x7_00000005,)) == EPERM


def test_conditions_on_several_arguments_must_all_hold_and_on_the_same_one_are_alternatives() -> None:
    both = _filter(_rule(["read"], _arg("EQ", 1), _arg("EQ", 2, index=1)))
    assert [run(both, X86_64, 0, args) for args in ((1, 2), (1, 3), (0, 2))] == [ALLOW, EPERM, EPERM]
    either = _filter(_rule(["read"], _arg("EQ", 1), _arg("EQ", 2)))
    assert [run(either, X86_64, 0, (value,)) for value in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


def test_the_first_rule_that_fits_decides() -> None:
    program = _filter(
        _rule(["read"], _arg("EQ", 1), action="SCMP_ACT_LOG"),
        _rule(["read"], _arg("LT", 5)),
        _rule(["read"], action="SCMP_ACT_TRAP"),
    )
    assert [run(program, X86_64, 0, (value,)) for value in (1, 2, 9)] == [0x7FFC0000, ALLOW, 0x30000]


def test_what_holds_without_conditions_is_asked_last_wherever_it_stands() -> None:
    program = _filter(_rule(["read"]), _rule(["read"], _arg("EQ", 1), action="SCMP_ACT_LOG"))
    assert [run(program, X86_64, 0, (value,)) for value in (1, 2)] == [0x7FFC0000, ALLOW]


def test_a_rule_that_says_what_the_default_says_is_none() -> None:
    program = _filter(_rule(["read"], _arg("EQ", 1), action="SCMP_ACT_ERRNO"), _rule(["read"]))
    assert run(program, X86_64, 0, (1,)) == ALLOW


def test_a_part_that_asks_nothing_does_not_run_into_the_next_one() -> None:
    program = _filter(
        _rule(["arm_fadvise64_64"], action="SCMP_ACT_ERRNO"),
        default="SCMP_ACT_ALLOW",
        architectures=["SCMP_ARCH_X86", "SCMP_ARCH_ARM"],
    )
    number = numbers("ARM")["arm_fadvise64_64"]
    assert [run(program, architecture, number) for architecture in (X86, 0x40000028)] == [ALLOW, EPERM]


def test_errnos() -> None:
    program = _filter(_rule(["read"], action="SCMP_ACT_ERRNO", errnoRet=5), defaultErrnoRet=7)
    assert [run(program, X86_64, number) for number in (0, 1)] == [0x50005, 0x50007]


def test_jumps_reach_across_a_large_program() -> None:
    rules = [
        _rule([name], *[_arg("EQ", n + 2, index=n % 6) for n in range(6)])
        for name in list(numbers("X86_64"))[:80]
    ]
    program = _filter(*rules)
    assert len(program) // 8 > 1000
    for number in range(79):
        assert run(program, X86_64, number, (2, 3, 4, 5, 6, 7)) == ALLOW
        assert run(program, X86_64, number, (2, 3, 4, 5, 6, 8)) == EPERM


def test_a_program_that_the_kernel_would_not_take_is_refused() -> None:
    rules = [_rule([name], *[_arg("EQ", n, index=0) for n in range(12)]) for name in numbers("X86_64")]
    with pytest.raises(Unsupported, match="4096"):
        _filter(*rules)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"defaultAction": "SCMP_ACT_NONSENSE"}, "no action"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "takes no errno"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}, "no flag"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [_rule([])]}, "names no call"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [_rule(["read"], _arg("ODD", 1), action="SCMP_ACT_KILL")],
            },
            "operator",
        ),
    ],
)
def test_profiles_that_are_wrong(profile: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidContent, match=words):
        seccomp.compile_filter(profile)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}, "can't be the default"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}, "without listenerPath"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [_rule(["read"], action="SCMP_ACT_NOTIFY")]},
            "needs a listenerPath",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": "/x",
                "syscalls": [_rule(["write"], _arg("EQ", 1), action="SCMP_ACT_NOTIFY")],
            },
            "can't be the action for write",
        ),
    ],
)
def test_an_agent_that_could_not_be_asked_is_an_error(profile: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidContent, match=words):
        seccomp.compile_filter(profile)


def test_a_listener_is_asked_for_only_where_a_rule_needs_one() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/x",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    }
    assert seccomp.compile_filter(profile).flags == 0
    asking = seccomp.compile_filter({**profile, "syscalls": [_rule(["mkdir"], action="SCMP_ACT_NOTIFY")]})
    assert (asking.notifies, asking.flags) == (True, 0x28)
    assert _call(asking.program, "mkdir") == 0x7FC00000


def test_an_architecture_without_a_table_is_refused() -> None:
    with pytest.raises(Unsupported):
        seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PARISC"]})


def _call(program: bytes, name: str, *arguments: int, architecture: int = X86_64) -> int:
    table = numbers("X86_64" if architecture == X86_64 else "X86")
    return run(program, architecture, table[name], arguments)


def test_rn_15_the_default_profile_denies_what_has_been_a_way_out() -> None:
    program = seccomp.compile_filter(defaults.seccomp_profile()).program
    for name in (
        "mount",
        "bpf",
        "keyctl",
        "userfaultfd",
        "unshare",
        "setns",
        "open_tree",
        "io_uring_setup",
        "kexec_load",
    ):
        assert _call(program, name) == EPERM
    for name in ("read", "openat", "execve", "fcntl", "futex", "rseq", "ptrace", "chroot"):
        assert _call(program, name) == ALLOW
    assert _call(program, "clone3") == ENOSYS
    assert _call(program, "socketcall", architecture=X86) == EPERM
    assert run(program, X86_64, 9999) == ENOSYS


@pytest.mark.parametrize("high", [0, 0xFFFFFFFF_00000000])
def test_rn_15_conditions_of_the_default_profile_see_what_the_kernel_sees(high: int) -> None:
    program = seccomp.compile_filter(defaults.seccomp_profile()).program
    for family in range(48):
        assert _call(program, "socket", high | family) == (EPERM if family in (38, 40) else ALLOW)
    assert _call(program, "ioctl", 0, high | 0x5412) == EPERM
    for request in (0x5401, 0x5411, 0x5413, 0xC0045412):
        assert _call(program, "ioctl", 0, high | request) == ALLOW
    assert _call(program, "clone", 0x11) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert _call(program, "clone", high | flag | 0x11) == EPERM
    assert _call(program, "personality", 0) == ALLOW
    assert _call(program, "personality", 0x40000) == EPERM


def test_the_tables_agree_with_the_kernels_headers() -> None:
    checked = 0
    for architecture, suffix in (("X86_64", "64"), ("X86", "32"), ("X32", "x32")):
        header = Path(f"/usr/include/x86_64-linux-gnu/asm/unistd_{suffix}.h")
        if not header.exists():
            not_installed("linux-libc-dev")
        pattern = re.compile(r"#define __NR_(\w+)\s+(?:\(__X32_SYSCALL_BIT \+ )?(\d+)")
        known = numbers(architecture)
        for name, number in pattern.findall(header.read_text()):
            assert known[name] == int(number)
            checked += 1
    assert checked > 1000


def test_every_table_is_complete_and_ordered() -> None:
    for architecture in architectures():
        found = numbers(architecture)
        assert len(set(found.values())) == len(found)
        assert {"read", "write", "exit_group", "execve", "clone3", "openat2"} <= set(found)


def _podman_profile() -> dict[str, Any]:
    """The profile of the distribution's engine, resolved for its default capabilities."""
    path = Path("/usr/share/containers/seccomp.json")
    if not path.exists():
        not_installed("golang-github-containers-common")
    document = json.loads(path.read_text())
    granted = set(defaults.config()["process"]["capabilities"]["bounding"])
    rules = []
    for rule in document["syscalls"]:
        needs, excluded = rule.get("includes") or {}, rule.get("excludes") or {}
        if set(needs.get("caps") or []) - granted or set(excluded.get("caps") or []) & granted:
            continue
        if needs.get("arches") and "amd64" not in needs["arches"]:
            continue
        if "amd64" in (excluded.get("arches") or []):
            continue
        rules.append(
            {
                key: value
                for key, value in rule.items()
                if key in ("names", "action", "args", "errnoRet") and value is not None
            }
        )
    found = {"defaultAction": document["defaultAction"], "syscalls": rules}
    if document.get("defaultErrnoRet") is not None:
        found["defaultErrnoRet"] = document["defaultErrnoRet"]
    return found


def _by_library(profile: dict[str, Any], tmp_path: Path) -> bytes:
    """The same profile through the library that other runtimes use."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        not_installed("libseccomp2")
    library.seccomp_init.restype = ctypes.c_void_p

    class Comparison(ctypes.Structure):
        _fields_ = (
            ("arg", ctypes.c_uint),
            ("op", ctypes.c_int),
            ("a", ctypes.c_uint64),
            ("b", ctypes.c_uint64),
        )

    def action(entry: dict[str, Any], key: str, errno: str) -> int:
        found = seccomp.ACTIONS[entry[key]]
        return (
            found | (entry.get(errno) or 1) if entry[key] in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else found
        )

    default = action(profile, "defaultAction", "defaultErrnoRet")
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    operators = {f"SCMP_CMP_{name}": number for number, name in enumerate(seccomp.OPERATORS, 1)}
    for rule in profile["syscalls"]:
        outcome = action(rule, "action", "errnoRet")
        if outcome == default:
            continue
        args = [
            Comparison(a["index"], operators[a["op"]], a["value"], a.get("valueTwo") or 0)
            for a in rule.get("args") or []
        ]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:
                library.seccomp_rule_add_array(
                    context, ctypes.c_uint32(outcome), number, len(args), (Comparison * len(args))(*args)
                )
    with (tmp_path / "filter").open("wb") as target:
        assert library.seccomp_export_bpf(context, target.fileno()) == 0
    library.seccomp_release(context)
    return (tmp_path / "filter").read_bytes()


def test_the_distributions_profile_means_the_same_as_through_the_library(tmp_path: Path) -> None:
    profile = _podman_profile()
    ours = seccomp.compile_filter(profile).program
    theirs = _by_library(profile, tmp_path)
    values = (0, 1, 2, 8, 16, 38, 40, 0x20000, 0x20008, 0x7E020000, 0x10000000, 0xFFFFFFFF, 0x1_00000000)
    for number in range(451):
        for value in values:
            arguments = (value, value, 0, value)
            assert run(ours, X86_64, number, arguments) == run(theirs, X86_64, number, arguments), (
                number,
                value,
            )
    assert len(ours) < len(theirs)
