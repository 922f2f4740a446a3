"""Seccomp profiles as people keep them for docker and podman, made what `linux.seccomp` is.

Such a file is one for all machines: a rule may say for which architectures, capabilities and kernels it is. A
file that is a `linux.seccomp` already stays what it is.
"""

from __future__ import annotations

from ocitool.errors import InvalidContent

from . import jsonfast
from .state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

# uname's name of a machine, as such files have it (Go's name), and seccomp's.
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
}
_OF_OUR_OWN = ("archMap", "includes", "excludes", "comment")


def load(path: str, capabilities: Collection[str], machine: str, kernel: str) -> dict[str, Any]:
    """Read a profile for one container.

    Args:
        path: of the file.
        capabilities: the container's bounding set.
        machine: as uname(2) calls it.
        kernel: its release, "6.1.0-32-amd64".

    Raises:
        NotFound, RunError: the file can't be read.
        InvalidContent: it is not such a profile.
    """
    what = f"seccomp profile {path}"
    profile = jsonfast.loads(read_file(path, "seccomp profile"), what)
    try:
        return _made(profile, capabilities, machine, _version(kernel))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise InvalidContent(
            f"{what} is not of docker's form, nor of linux.seccomp's",
            hint="it has defaultAction and syscalls",
        ) from exc


def _made(
    profile: dict[str, Any], capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    if "defaultAction" not in profile:
        raise ValueError(profile)
    name, native = _MACHINES.get(machine, (machine, ""))
    made = {key: value for key, value in profile.items() if key not in _OF_OUR_OWN}
    for entry in profile.get("archMap") or []:
        if entry["architecture"] == native:
            made["architectures"] = [native, *(entry.get("subArchitectures") or [])]
    rules = [
        rule
        for rule in profile.get("syscalls") or []
        if _holds(rule.get("includes") or {}, capabilities, name, kernel, default=True)
        and not _holds(rule.get("excludes") or {}, capabilities, name, kernel, default=False)
    ]
    made["syscalls"] = [_rule(rule) for rule in rules]
    return made


def _holds(
    condition: Mapping[str, Any],
    capabilities: Collection[str],
    name: str,
    kernel: tuple[int, int],
    *,
    default: bool,
) -> bool:
    """Whether all that a rule includes is there, or any of what it excludes."""
    found = [capability in capabilities for capability in condition.get("caps") or []]
    if arches := condition.get("arches"):
        found.append(name in arches)
    if least := condition.get("minKernel"):
        found.append(kernel >= _version(least))
    return (all(found) if default else any(found)) if found else default


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    made = {
        key: value for key, value in rule.items() if key not in _OF_OUR_OWN and value not in (None, "", [])
    }
    if "name" in made:
        made["names"] = [*made.get("names", []), made.pop("name")]
    return made


def _version(release: str) -> tuple[int, int]:
    major, minor = release.split("-", maxsplit=1)[0].split(".")[:2]
    return int(major), int(minor)
