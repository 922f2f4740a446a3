"""From an image's configuration to a runtime's: `config.json` (image-spec, conversion.md).

Pure: documents in, a document out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ocitool import defaults
from ocitool.errors import InvalidContent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocitool.model import ImageConfig
    from ocitool.unpack.idmap import IdMap
    from ocitool.unpack.users import User

HOOKS: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
"""The stages at which a runtime runs hooks, in their order."""

_COMMAND: Final = ("sh",)
_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_KINDS: Final = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    float: "a fraction",
    type(None): "null",
}
_ANNOTATION: Final = "org.opencontainers.image."


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What whoever unpacks wants otherwise.

    Attributes:
        hostname: the container's host name.
        env: `NAME=VALUE` to set, or `NAME` to unset, in the process's environment.
        annotations: annotations to set.
        hooks: the runtime configuration's `hooks`, as they are to stand there.
        template: a runtime configuration whose values win over the image's and the defaults': objects are
            merged key by key, everything else is replaced. `linux.seccomp` counts as a whole, and null means
            that there is none.
    """

    hostname: str = ""
    env: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    hooks: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)


def runtime_config(
    image: ImageConfig,
    user: User,
    *,
    ids: IdMap | None = None,
    volumes: Sequence[Mapping[str, Any]] = (),
    edits: Edits = Edits(),
) -> dict[str, Any]:
    """The runtime configuration of an image.

    Args:
        image: its configuration.
        user: whom `Config.User` names in its root file system.
        ids: how users and groups are mapped, where the container has a user namespace of its own.
        volumes: mounts for `Config.Volumes`.
        edits: what is wanted otherwise.

    Raises:
        InvalidContent: the template has something else where there is an object, a list or a string.
    """
    mounts = defaults.rootless_mounts(single=ids.single) if ids else defaults.mounts()
    config = {
        "ociVersion": defaults.OCI_VERSION,
        "process": _process(image.config, user),
        "root": {"path": "rootfs"},
        "hostname": defaults.HOSTNAME,
        "mounts": [*mounts, *map(dict, volumes)],
        "annotations": _annotations(image),
        "linux": _linux(ids),
    }
    machine = image.platform.architecture
    return _confined(_edited(_merged(config, edits.template), edits), machine, edits.template)


def dumps(config: Mapping[str, Any]) -> bytes:
    """The document as people read it."""
    return json.dumps(config, indent=2, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


def _process(config: Mapping[str, Any], user: User) -> dict[str, Any]:
    ids: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    if user.additional:
        ids["additionalGids"] = list(user.additional)
    # conversion.md: "If both `Config.Entrypoint` and `Config.Cmd` are specified, the converter MUST append
    # the value of `Config.Cmd` to the value of `Config.Entrypoint`".
    args = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    return {
        "terminal": False,
        "user": ids,
        "args": args or list(_COMMAND),
        "env": _environment(config.get("Env") or (), user),
        # runtime-spec, config.md, cwd: "This value MUST be an absolute path."
        "cwd": "/" + (config.get("WorkingDir") or "").lstrip("/"),
        "capabilities": _capabilities(user),
        "noNewPrivileges": True,
    }


def _environment(env: Sequence[str], user: User) -> list[str]:
    # conversion.md: "The converter MAY add additional entries to `process.env` but it SHOULD NOT add entries
    # that have variable names present in `Config.Env`."
    names = {entry.partition("=")[0] for entry in env}
    added = [f"HOME={user.home}"] if "HOME" not in names else []
    return [*([] if "PATH" in names else [defaults.PATH]), *env, *added]


def _capabilities(user: User) -> dict[str, list[str]]:
    bounding = list(defaults.CAPABILITIES)
    # An ordinary user's process has none of them, as after execve(2); a setuid program may still get them.
    held = list(bounding) if user.uid == 0 else []
    return {"bounding": bounding, "effective": held, "permitted": held}


def _annotations(image: ImageConfig) -> dict[str, str]:
    fields, config = image.fields, image.config
    implied = {
        "os": fields.get("os"),
        "architecture": fields.get("architecture"),
        "variant": fields.get("variant"),
        "os.version": fields.get("os.version"),
        "os.features": ",".join(image.platform.os_features),
        "author": fields.get("author"),
        "created": fields.get("created"),
        "stopSignal": config.get("StopSignal"),
        # conversion.md: "the list of values that correspond to the keys defined for `Config.ExposedPorts`
        # (string, comma-separated values)".
        "exposedPorts": ",".join(config.get("ExposedPorts") or ()),
    }
    annotations = {
        _ANNOTATION + key: value for key, value in implied.items() if value and isinstance(value, str)
    }
    # "the value specified in `Config.Labels` MUST take precedence."
    return {**annotations, **(config.get("Labels") or {})}


def _linux(ids: IdMap | None) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in (*_NAMESPACES, *(["user"] if ids else []))],
        "maskedPaths": list(defaults.MASKED_PATHS),
        "readonlyPaths": list(defaults.READONLY_PATHS),
    }
    if ids:
        linux |= {"uidMappings": ids.uids_json(), "gidMappings": ids.gids_json()}
    else:
        # A runtime allows the devices that every container has by itself.
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return linux


def _confined(config: dict[str, Any], machine: str, template: Mapping[str, Any]) -> dict[str, Any]:
    """Add the seccomp profile that goes with the capabilities, unless the template has one of its own."""
    linux = config["linux"]
    given = template.get("linux") or {}
    if "seccomp" not in given:
        sets = config["process"].get("capabilities") or {}
        linux["seccomp"] = defaults.seccomp(machine, sets.get("bounding") or ())
    elif given["seccomp"] is None:
        linux.pop("seccomp", None)
    return config


def _merged(base: Any, over: Any, where: str = "") -> Any:
    if base is None or over is None:
        return base if over is None else over
    if type(base) is not type(over):
        raise InvalidContent(f"{where} in the configuration template is {_kind(over)}, not {_kind(base)}")
    if isinstance(base, dict):
        return {
            **base,
            **{key: _merged(base.get(key), over[key], f"{where}.{key}".lstrip(".")) for key in over},
        }
    if isinstance(base, list) and base:
        # What stands there already tells of which kind all of them are.
        for item in over:
            if type(item) is not type(base[0]):
                raise InvalidContent(
                    f"{where} in the configuration template has {_kind(item)} for {_kind(base[0])}"
                )
    return over


def _kind(value: Any) -> str:
    """What JSON calls it."""
    return _KINDS[type(value)]


def _edited(config: dict[str, Any], edits: Edits) -> dict[str, Any]:
    if edits.hostname:
        config["hostname"] = defaults.hostname(edits.hostname)
    if edits.env:
        named = {entry.partition("=")[0] for entry in edits.env}
        kept = [entry for entry in config["process"]["env"] if entry.partition("=")[0] not in named]
        config["process"]["env"] = [*kept, *(entry for entry in edits.env if "=" in entry)]
    if edits.annotations:
        config["annotations"] = {**config.get("annotations", {}), **edits.annotations}
    if edits.hooks:
        config["hooks"] = dict(edits.hooks)
    return config
