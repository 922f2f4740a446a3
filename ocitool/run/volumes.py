"""Mounts as command lines ask for them: `--volume`, `--tmpfs`, `--mount` and `--init`."""

from __future__ import annotations

import os

from ocitool.errors import InvalidReference, RunError, Unsupported

from .paths import same_names

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    "bind": {"type", "source", "target", "readonly", "bind-propagation", "consistency"},
    "tmpfs": {"type", "target", "readonly", "tmpfs-size", "tmpfs-mode"},
}


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
        options = ["nosuid", "nodev", "tmpcopyup"]
        return {"destination": _place(text, "volume"), "type": "tmpfs", "source": "tmpfs", "options": options}
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
    readonly = fields.get("readonly", "false").lower()
    if readonly not in (*_TRUE, *_FALSE):
        raise InvalidReference(f"mount {text!r}: readonly is true or false, not {readonly!r}")
    modes = ["ro"] if readonly in _TRUE else []
    if kind == "bind":
        propagation = fields.get("bind-propagation", "rprivate")
        if propagation not in _PROPAGATIONS:
            raise InvalidReference(f"mount {text!r}: {propagation!r} is no propagation")
        return _bind(os.path.abspath(fields["source"]), fields["target"], [*modes, propagation])
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


def _place(path: str, what: str) -> str:
    """Where a mount is made, in the one spelling by which it can be compared."""
    if not path.startswith("/"):
        raise InvalidReference(f"the {what}'s destination {path!r} is not an absolute path")
    place = same_names(path)
    if place == "/":
        raise InvalidReference(f"the {what}'s destination can't be the root directory itself")
    return place
