"""Mounts as command lines ask for them: `--volume`, `--tmpfs`, `--mount` and `--init`."""

from __future__ import annotations

import os

from ocitool.errors import InvalidReference, RunError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BIND_MODES = frozenset(
    ("ro", "rw", "z", "Z", "private", "rprivate", "shared", "rshared", "slave", "rslave", "exec", "noexec",
     "dev",  "nodev", "suid", "nosuid", "U", "cached", "delegated", "consistent", "nocopy")
)  # fmt: skip
# Accepted for the sake of scripts, and without meaning here.
_IGNORED_MODES = frozenset(("z", "Z", "cached", "delegated", "consistent", "nocopy"))

INIT = "/dev/init"
# Programs of one purpose: to be the first process, collect orphans and pass signals on. All are static.
_INIT_PROGRAMS = (
    "/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/bin/tini-static", "/usr/bin/docker-init",
)  # fmt: skip
_SPELLINGS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_MOUNT_KEYS = {
    "bind": {"type", "source", "target", "readonly", "bind-propagation"},
    "tmpfs": {"type", "target", "readonly", "tmpfs-size", "tmpfs-mode"},
}


def volume(text: str) -> dict[str, Any]:
    """The mount that `--volume SOURCE:DESTINATION[:MODE,...]` asks for.

    Raises:
        InvalidReference: it is not well-formed. Unsupported: it is kept by an engine.
    """
    parts = text.split(":")
    if len(parts) == 1 or not parts[0].startswith("/"):
        # As docker's users write them, there is a name for the engine to keep.
        raise Unsupported(
            f"volume {text!r}: volumes that an engine keeps by name are not supported",
            hint="give /HOST:/CONTAINER, or ./HOST:/CONTAINER",
        )
    if len(parts) > 3:
        raise InvalidReference(f"volume {text!r} is not SOURCE:DESTINATION[:MODE]")
    source, destination = parts[0], _absolute(parts[1], "volume's destination")
    modes = [mode for mode in (parts[2] if len(parts) == 3 else "").split(",") if mode]
    for mode in modes:
        if mode not in _BIND_MODES:
            raise InvalidReference(f"volume {text!r}: {mode!r} is not a mode")
    if "U" in modes:
        raise Unsupported(f"volume {text!r}: changing its owner (U) is not supported")
    shown = [mode for mode in modes if mode not in _IGNORED_MODES]
    if not any(mode.lstrip("r") in ("private", "shared", "slave") for mode in shown):
        shown.append("rprivate")
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *shown]}


def tmpfs(text: str) -> dict[str, Any]:
    """The mount that `--tmpfs DESTINATION[:OPTION,...]` asks for.

    Raises:
        InvalidReference: the destination is not absolute.
    """
    destination, _, words = text.partition(":")
    chosen = [word for word in words.split(",") if word]
    return {
        "destination": _absolute(destination, "tmpfs's destination"),
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
    for item in text.split(","):
        name, _, value = item.partition("=")
        fields[_SPELLINGS.get(name, name)] = value
    kind = fields.get("type", "volume")
    if kind not in _MOUNT_KEYS:
        raise Unsupported(f"mount {text!r}: the type {kind} is not supported", hint="use type=bind or tmpfs")
    unknown = sorted(set(fields) - _MOUNT_KEYS[kind])
    if unknown:
        raise InvalidReference(f"mount {text!r}: {unknown[0]!r} is no property of a {kind} mount")
    if "target" not in fields or (kind == "bind" and "source" not in fields):
        raise InvalidReference(
            f"mount {text!r}: a {kind} mount needs {'source and ' * (kind == 'bind')}target"
        )
    readonly = fields.get("readonly", "false").lower() in ("", "1", "true")
    modes = ["ro"] if readonly else []
    if kind == "bind":
        modes.append(fields.get("bind-propagation", "rprivate"))
        return volume(f"{os.path.abspath(fields['source'])}:{fields['target']}:{','.join(modes)}")
    modes += [f"{name}={fields[f'tmpfs-{name}']}" for name in ("size", "mode") if f"tmpfs-{name}" in fields]
    return tmpfs(f"{fields['target']}:{','.join(modes)}")


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


def _absolute(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise InvalidReference(f"the {what} {path!r} is not an absolute path")
    return path
