"""What a container gets that asks for nothing, beside what an engine gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.peers import require

from ocitool import defaults

ADMIN = {"mount", "unshare", "setns", "bpf", "clone", "clone3"}


def allowed(profile: dict[str, Any]) -> set[str]:
    """The calls that a profile allows whatever their arguments."""
    rules = [rule for rule in profile["syscalls"] if not rule.get("args")]
    return {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def podmans() -> set[str]:
    """The same of Podman, for the default capabilities and the machines that amd64 is."""
    require("podman")
    found: set[str] = set()
    for rule in json.loads(Path("/usr/share/containers/seccomp.json").read_bytes())["syscalls"]:
        needs, excluded = rule.get("includes") or {}, rule.get("excludes") or {}
        fits = set(needs.get("caps") or ()) <= set(defaults.CAPABILITIES)
        fits &= not set(excluded.get("caps") or ()) & set(defaults.CAPABILITIES)
        fits &= not needs.get("arches") or "amd64" in needs["arches"]
        if fits and rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args"):
            found |= set(rule["names"])
    return found


def test_the_profile_allows_what_podmans_does_but_for_the_ways_out() -> None:
    ours, theirs = allowed(defaults.seccomp("amd64", defaults.CAPABILITIES)), podmans()
    # Podman lets containers nest and change their mounts; Docker and ocitool ask for a capability first.
    nesting = {"mount", "umount", "umount2", "pivot_root", "setns", "unshare", "clone", "clone3"}
    nesting |= {"fsconfig", "fsmount", "fsopen", "fspick", "mount_setattr", "move_mount", "open_tree"}
    # Here by condition, or not at all: what sees all of the machine.
    others = {"ioctl", "socket", "socketcall", "keyctl", "reboot", "syslog", "pidfd_getfd"}
    others |= {"get_mempolicy", "mbind", "set_mempolicy"}
    aliases = {"syscall", "timerfd"}  # no processor has them
    assert theirs - ours == nesting | others | aliases


def test_a_call_comes_with_its_capability() -> None:
    plain = allowed(defaults.seccomp("amd64", defaults.CAPABILITIES))
    assert "chroot" in plain
    assert not ADMIN & plain
    assert "chroot" not in allowed(defaults.seccomp("amd64", ()))
    assert allowed(defaults.seccomp("amd64", [*defaults.CAPABILITIES, "CAP_SYS_ADMIN"])) >= ADMIN | plain
    assert allowed(defaults.seccomp("amd64", ["CAP_SYS_TIME"])) >= {"clock_settime", "settimeofday"}


@pytest.mark.parametrize(
    ("machine", "first"),
    [("amd64", "X86_64"), ("x86_64", "X86_64"), ("arm64", "AARCH64"), ("aarch64", "AARCH64"), ("386", "X86")],
)
def test_images_and_the_kernel_name_machines_differently(machine: str, first: str) -> None:
    assert defaults.seccomp(machine, ())["architectures"][0] == f"SCMP_ARCH_{first}"


def test_an_unknown_machine_is_the_runtimes_own() -> None:
    assert "architectures" not in defaults.seccomp("loong64", ())


def test_the_flags_of_clone_are_its_second_argument_on_s390x() -> None:
    for machine, index in (("amd64", 0), ("s390x", 1)):
        rules = defaults.seccomp(machine, ())["syscalls"]
        assert [rule["args"][0]["index"] for rule in rules if rule["names"] == ["clone"]] == [index]
