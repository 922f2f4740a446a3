"""Seccomp profiles as docker and podman read them, for one machine, kernel and set of capabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ocitool.errors import InvalidContent, NotFound
from ocitool.run import profiles, spec

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": None, "comment": "", "includes": {}},
        {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
            "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]},
        },
        {
            "names": ["clone3"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 38,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "5.0"}},
    ],
}  # fmt: skip


def load(
    place: Path,
    profile: Any = PROFILE,
    *,
    caps: tuple[str, ...] = (),
    machine: str = "x86_64",
    kernel: str = "6.1.0-32",
) -> dict[str, Any]:
    (place / "profile.json").write_text(profile if isinstance(profile, str) else json.dumps(profile))
    return profiles.load(f"{place}/profile.json", caps, machine, kernel)


def names(profile: dict[str, Any]) -> list[str]:
    return [name for rule in profile["syscalls"] for name in rule["names"]]


def test_a_rule_counts_where_all_that_it_includes_is_there_and_nothing_that_it_excludes(
    tmp_path: Path,
) -> None:
    assert names(load(tmp_path)) == ["read", "write", "ptrace", "arch_prctl", "clone", "clone3"]
    assert names(load(tmp_path, caps=("CAP_SYS_ADMIN",))) == ["read", "write", "ptrace", "arch_prctl"]
    assert "bpf" in names(load(tmp_path, caps=("CAP_SYS_ADMIN", "CAP_BPF")))
    assert names(load(tmp_path, kernel="4.7.10", machine="s390x")) == ["read", "write", "clone3", "old"]
    assert names(load(tmp_path, kernel="4.18", machine="aarch64")) == [
        "read",
        "write",
        "ptrace",
        "clone",
        "clone3",
        "old",
    ]


def test_the_architectures_are_those_of_the_machine(tmp_path: Path) -> None:
    assert load(tmp_path)["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert load(tmp_path, machine="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]
    assert "architectures" not in load(tmp_path, machine="riscv64")


def test_what_comes_out_is_what_the_runtime_takes(tmp_path: Path) -> None:
    made = load(tmp_path)
    linux = {"namespaces": [{"type": "mount"}], "seccomp": made}
    spec.check({"ociVersion": "1.0.2", "root": {"path": "r"}, "linux": linux})
    assert load(tmp_path, made) == made


@pytest.mark.parametrize(
    "profile", ["{}", "[]", '{"defaultAction": "SCMP_ACT_KILL", "syscalls": ["read"]}', "not json"]
)
def test_another_file_is_refused(tmp_path: Path, profile: str) -> None:
    with pytest.raises(InvalidContent, match="seccomp profile"):
        load(tmp_path, profile)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.json"):
        profiles.load(f"{tmp_path}/nothing.json", (), "x86_64", "6.1")
