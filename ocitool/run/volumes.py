"""Mounts as command lines ask for them: `--volume`, `--tmpfs`, `--mount`, `--init` and `--ipc`."""

from __future__ import annotations

import os

from ocitool.errors import InvalidReference, RunError, Unsupported

from .paths import same_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
# Accepted for the sake of scripts, and without meaning here.
_IGNORED_MODES = ("z", "Z", "cached", "delegated", "consistent", "nocopy")
_BIND_MODES = frozenset(
    (*_PROPAGATIONS, *_IGNORED_MODES, "ro", "rw", "exec", "noexec", "dev", "nodev", "suid", "nosuid", "U")
)

INIT = "/dev/init"
# Programs of one purpose: to be the first process, collect orphans and pass signals on. All are static.
_INIT_PROGRAMS = (
    "/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/bin/tini-static", "/usr/bin/docker-init",
)  # fmt: skip
_TRUE, _FALSE = ("", "1", "t", "true"), ("0", "f", "false")
_SPELLINGS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_MOUNT_KEYS = {
    "bind": {
        "type", "source", "target", "readonly", "bind-propagation", "bind-nonrecursive", "bind-recursive",
        "consistency",
    },
    "tmpfs": {"type", "target", "readonly", "tmpfs-size", "tmpfs-mode"},
    "volume": {"type", "target", "readonly", "volume-nocopy"},
}  # fmt: skip
# bind-recursive: whether with what is mounted below the source, and what read-only means to that.
_RECURSIVE = {
    "enabled": ("rbind", "ro"), "disabled": ("bind", "ro"), "writable": ("rbind", "ro"),
    "readonly": ("rbind", "rro"),
}  # fmt: skip


def volume(text: str) -> dict[str, Any]:
    """The mount that `--volume SOURCE:DESTINATION[:MODE,...]` asks for, or `--volume DESTINATION`.

    The latter is a volume without a name, of this container alone: it has what the image has there, can be
    written to in a read-only root as well, and ends with the container. It is in memory, as are the volumes
    that an image names.

    Raises:
        InvalidReference: it is not well-formed. Unsupported: it is kept by an engine.
    """
    parts = text.split(":")
    if len(parts) == 1 and text.startswith("/"):
        return _own(text, ["tmpcopyup"])
    if not parts[0].startswith("/"):
        # As docker's users write them, there is a name for the engine to keep.
        raise Unsupported(
            f"volume {text!r}: volumes that an engine keeps by name are not supported",
            hint="give /HOST:/CONTAINER or ./HOST:/CONTAINER; /CONTAINER alone ends with the container",
        )
    if len(parts) > 3:
        raise InvalidReference(f"volume {text!r} is not SOURCE:DESTINATION[:MODE]")
    modes = [mode for mode in (parts[2] if len(parts) == 3 else "").split(",") if mode]
    for mode in modes:
        if mode not in _BIND_MODES:
            raise InvalidReference(f"volume {text!r}: {mode!r} is not a mode")
    if "U" in modes:
        raise Unsupported(f"volume {text!r}: changing its owner (U) is not supported")
    return _bind(parts[0], parts[1], [mode for mode in modes if mode not in _IGNORED_MODES])


def _own(destination: str, modes: list[str]) -> dict[str, Any]:
    """A volume of the container alone."""
    options = ["nosuid", "nodev", *modes]
    return {
        "destination": _place(destination, "volume"),
        "type": "tmpfs",
        "source": "tmpfs",
        "options": options,
    }


def of_image(paths: Iterable[str]) -> list[dict[str, Any]]:
    """The mounts of volumes that an image names, each one of the container's own."""
    places = {same_names(path) for path in paths} - {"/"}
    return [_own(place, ["tmpcopyup"]) for place in sorted(places)]


def _bind(source: str, destination: str, modes: list[str]) -> dict[str, Any]:
    if not any(mode in _PROPAGATIONS for mode in modes):
        modes = [*modes, "rprivate"]
    place = _place(destination, "volume")
    return {"destination": place, "type": "bind", "source": source, "options": ["rbind", *modes]}


def tmpfs(text: str) -> dict[str, Any]:
    """The mount that `--tmpfs DESTINATION[:OPTION,...]` asks for.

    Raises:
        InvalidReference: the destination is not absolute, or is the root directory.
    """
    destination, _, words = text.partition(":")
    chosen = [word for word in words.split(",") if word]
    return {
        "destination": _place(destination, "tmpfs"),
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "noexec", *chosen],
    }


def mount(text: str) -> dict[str, Any]:
    """The mount that `--mount NAME=VALUE,...` asks for.

    Raises:
        InvalidReference: it is not well-formed. Unsupported: it is of a type that an engine keeps.
    """
    fields = {}
    for item in _fields(text):
        name, _, value = item.partition("=")
        fields[_SPELLINGS.get(name, name)] = value
    kind = fields.get("type", "volume")
    if kind not in _MOUNT_KEYS:
        raise Unsupported(
            f"mount {text!r}: the type {kind} is not supported", hint="use bind, tmpfs or volume"
        )
    if kind == "volume" and "source" in fields:
        raise Unsupported(
            f"mount {text!r}: volumes that an engine keeps by name are not supported",
            hint="type=bind mounts a directory of the host's; a volume without source is the container's own",
        )
    unknown = sorted(set(fields) - _MOUNT_KEYS[kind])
    if unknown:
        raise InvalidReference(f"mount {text!r}: {unknown[0]!r} is no property of a {kind} mount")
    if "target" not in fields or (kind == "bind" and "source" not in fields):
        raise InvalidReference(
            f"mount {text!r}: a {kind} mount needs {'source and ' * (kind == 'bind')}target"
        )
    readonly = ["ro"] if _truth(fields, "readonly", text) else []
    if kind == "bind":
        return _bind_of(fields, text, readonly)
    if kind == "volume":
        return _own(fields["target"], readonly + ["tmpcopyup"] * (not _truth(fields, "volume-nocopy", text)))
    modes = [f"{name}={fields[f'tmpfs-{name}']}" for name in ("size", "mode") if f"tmpfs-{name}" in fields]
    return tmpfs(f"{fields['target']}:{','.join(readonly + modes)}")


def _fields(text: str) -> list[str]:
    """The parts between commas; one with a comma in it stands in quotation marks, as docker reads them."""
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as exc:
        raise InvalidReference(f"mount {text!r}: {exc}") from exc


def _bind_of(fields: dict[str, str], text: str, readonly: list[str]) -> dict[str, Any]:
    propagation = fields.get("bind-propagation", "rprivate")
    if propagation not in _PROPAGATIONS:
        raise InvalidReference(f"mount {text!r}: {propagation!r} is no propagation")
    recursive = fields.get("bind-recursive", "enabled")
    if _truth(fields, "bind-nonrecursive", text):
        recursive = "disabled"
    if recursive not in _RECURSIVE:
        raise InvalidReference(f"mount {text!r}: bind-recursive is one of {', '.join(_RECURSIVE)}")
    how, word = _RECURSIVE[recursive]
    made = _bind(os.path.abspath(fields["source"]), fields["target"], [word] * len(readonly) + [propagation])
    made["options"][0] = how
    return made


def _truth(fields: dict[str, str], name: str, text: str) -> bool:
    value = fields.get(name, "false").lower()
    if value not in (*_TRUE, *_FALSE):
        raise InvalidReference(f"mount {text!r}: {name} is true or false, not {value!r}")
    return value in _TRUE


def ordered(kept: list[dict[str, Any]], added: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mounts in an order in which none hides another one by accident.

    Those that are added come last, and what lies below another after it. What was there before comes after a
    new file system that it lies below, as `/etc/hosts` in a volume on `/etc`; a directory of the host's is
    shown as it is, and nothing is made in it.
    """
    new = tuple(f"{mount['destination']}/" for mount in added if mount["type"] == "tmpfs")
    within = [mount for mount in kept if mount["destination"].startswith(new)]
    last = sorted([*added, *within], key=lambda mount: mount["destination"].count("/"))
    return [mount for mount in kept if mount not in within] + last


def of_ipc(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mounts for a container that shares the host's System V and POSIX objects, as far as there are any."""
    options = ["rbind", "rprivate", "nosuid", "nodev", "noexec"]
    made = []
    for mount in mounts:
        place = mount["destination"]
        if (place, mount.get("type")) not in (("/dev/shm", "tmpfs"), ("/dev/mqueue", "mqueue")):
            made.append(mount)
        elif os.path.isdir(place):
            made.append({"destination": place, "type": "bind", "source": place, "options": options})
    return made


def without_shared_memory(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mounts for a container without shared memory of POSIX; it keeps message queues."""
    return [mount for mount in mounts if mount["destination"] != "/dev/shm"]


def init_program() -> dict[str, Any]:
    """The mount of the host's own program for `--init`.

    Raises:
        RunError: the host has none.
    """
    for path in _INIT_PROGRAMS:
        if os.access(path, os.X_OK):
            return {
                "destination": INIT,
                "type": "bind",
                "source": path,
                "options": ["bind", "ro", "nosuid", "nodev"],
            }
    raise RunError(
        "--init needs a program to be the first process", hint="install the package catatonit, or tini"
    )


def _place(path: str, what: str) -> str:
    """Where a mount is made, in the one spelling by which it can be compared."""
    if not path.startswith("/"):
        raise InvalidReference(f"the {what}'s destination {path!r} is not an absolute path")
    place = same_names(path)
    if place == "/":
        raise InvalidReference(f"the {what}'s destination can't be the root directory itself")
    return place
