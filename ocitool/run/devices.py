"""The host's devices in a container, as command lines ask for them."""

from __future__ import annotations

import os
import stat

from ocitool.errors import InvalidReference, RunError

from .paths import same_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_DEV = "/dev"
# What every container has of its own (config-linux.md, "Default Devices", and its mounts below /dev).
_OWN = frozenset(
    (
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "console",
        "ptmx",
        "pts",
        "shm",
        "mqueue",
        "hugepages",
    )
)


class Device:
    """A device of the host's.

    Attributes:
        source: where the host has it.
        path: where the container is to have it.
        info: what stat(2) says of it.
        access: the letters r, w and m for what a control group lets the container do.
    """

    def __init__(self, source: str, path: str, info: os.stat_result, access: str = "rwm") -> None:
        self.source = source
        self.path = path
        self.info = info
        self.access = access

    @property
    def kind(self) -> str:
        """What a config.json calls its type."""
        return "b" if stat.S_ISBLK(self.info.st_mode) else "c"


def named(text: str) -> list[Device]:
    """What `--device HOST[:CONTAINER][:ACCESS]` asks for: a device, or all those below a directory.

    Raises:
        InvalidReference: it is not well-formed. RunError: the host has no such device.
    """
    source, *rest = text.split(":")
    access = rest.pop() if rest and not rest[-1].startswith("/") else "rwm"
    path = rest.pop() if rest else source
    if rest or not {*access} <= {*"rwm"} or not access or not source.startswith("/"):
        raise InvalidReference(f"device {text!r} is not HOST[:CONTAINER][:ACCESS], with rwm for all access")
    try:
        info = os.stat(source)
    except OSError as exc:
        raise RunError(f"device {source}: {exc.strerror}") from exc
    found = list(_below(source, path, access)) if stat.S_ISDIR(info.st_mode) else []
    if _is_device(info):
        found = [Device(source, same_names(path), info, access)]
    if not found:
        raise RunError(f"device {source}: there is no device", hint="--volume gives a file or a directory")
    return found


def of_host() -> list[Device]:
    """All devices of this host that a container has not got by itself."""
    return list(_below(_DEV, _DEV, "rwm", _OWN))


def _below(source: str, path: str, access: str, without: frozenset[str] = frozenset()) -> Iterator[Device]:
    """The devices in a directory and in those below it; links to them are not."""
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in without:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, f"{path}/{entry.name}", access)
            elif _is_device(info := entry.stat(follow_symlinks=False)):
                yield Device(entry.path, same_names(f"{path}/{entry.name}"), info, access)


def _is_device(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)


def add(config: dict[str, Any], found: list[Device]) -> None:
    """Give a container devices; one on the same path takes the earlier one's place.

    In a user namespace no node can be made, and the host's own, with what its owner allows, is mounted.
    """
    linux = config["linux"]
    if _has_users(linux):
        options = ["bind", "rprivate", "nosuid", "noexec"]
        new = {
            device.path: {
                "destination": device.path,
                "type": "bind",
                "source": device.source,
                "options": options,
            }
            for device in found
        }
        kept = [mount for mount in config.get("mounts") or [] if mount["destination"] not in new]
        config["mounts"] = [*kept, *new.values()]
        return
    nodes = {device.path: _node(device) for device in found}
    kept = [node for node in linux.get("devices") or [] if node["path"] not in nodes]
    linux["devices"] = [*kept, *nodes.values()]
    resources = linux.setdefault("resources", {})
    resources["devices"] = [*(resources.get("devices") or []), *map(_rule, found)]


def allow(linux: dict[str, Any], rules: Iterable[str]) -> None:
    """Let a container use what `--device-cgroup-rule TYPE MAJOR:MINOR ACCESS` names, which may come later.

    Raises:
        InvalidReference: a rule is not well-formed.
    """
    found = [_allowed(text) for text in rules]
    if found and not _has_users(linux):
        resources = linux.setdefault("resources", {})
        resources["devices"] = [*(resources.get("devices") or []), *found]


def _allowed(text: str) -> dict[str, Any]:
    import re

    found = re.fullmatch(r"([abc]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})", text)
    if found is None:
        raise InvalidReference(
            f"--device-cgroup-rule {text!r} is not TYPE MAJOR:MINOR ACCESS, such as 'c 81:* rmw'"
        )
    kind, major, minor, access = found.groups()
    chosen = {"major": major, "minor": minor}
    numbered = {name: int(number) for name, number in chosen.items() if number != "*"}
    return {"allow": True, "type": kind, **numbered, "access": access}


def allow_all(linux: dict[str, Any]) -> None:
    """Let a container use every device, where the caller may decide about that."""
    if not _has_users(linux):
        linux.setdefault("resources", {})["devices"] = [{"allow": True, "access": "rwm"}]


def _has_users(linux: dict[str, Any]) -> bool:
    """Whether the container has a user namespace of its own."""
    return any(entry["type"] == "user" for entry in linux.get("namespaces") or [])


def _node(device: Device) -> dict[str, Any]:
    info = device.info
    return {
        "path": device.path, "type": device.kind,
        "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid,
    }  # fmt: skip


def _rule(device: Device) -> dict[str, Any]:
    number = device.info.st_rdev
    return {
        "allow": True, "type": device.kind, "major": os.major(number), "minor": os.minor(number),
        "access": device.access,
    }  # fmt: skip
