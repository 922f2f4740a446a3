"""config.json, checked before anything is done with it (runtime-spec, config.md and config-linux.md).

One table says what is known, and of what type. "Runtimes ... MUST NOT generate an error when an
unknown property is encountered", so whatever the table does not name is left alone; "runtimes MUST
generate an error when invalid or unsupported values are encountered", so whatever it names is
checked in full. After `check`, the rest of the package reads the document without asking again.
"""

from __future__ import annotations

from ocitool.errors import InvalidContent, Unsupported

from . import jsonfast
from .namespaces import TYPES
from .process import (
    IO_CLASSES,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    PERSONALITIES,
    RLIMITS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
)
from .state import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

OLDEST = "1.0.0"
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
# config-linux.md has the first four; runc's names for the same, as engines write them, are the others.
_PROPAGATION = tuple(r + kind for r in ("", "r") for kind in ("private", "shared", "slave", "unbindable"))


class _Integer:
    """An integer within bounds."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high


class _OneOf:
    """A string out of a set."""

    def __init__(self, values: Iterable[str]) -> None:
        self.values = frozenset(values)


class _Map:
    """An object whose values all follow one rule."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule


# In a table, "name!" is a property that must be there. A list holds the rule of its items.
_U16, _U32, _U64 = (_Integer(0, (1 << bits) - 1) for bits in (16, 32, 64))
_I32, _I64 = (_Integer(-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (32, 64))
_ID = _Integer(0, 0xFFFFFFFE)  # 0xFFFFFFFF is "no change" to the kernel, and never a user
_LIMIT = _Integer(-1, (1 << 64) - 1)
_ID_MAP = [{"containerID!": _ID, "hostID!": _ID, "size!": _U32}]
_HOOK = [{"path!": str, "args": [str], "env": [str], "timeout": _I64}]
_WEIGHT = {"major!": _I64, "minor!": _I64, "weight": _U16, "leafWeight": _U16}
_RATE = [{"major!": _I64, "minor!": _I64, "rate!": _U64}]
_PROCESS = {
    "terminal": bool,
    "consoleSize": {"height!": _U32, "width!": _U32},
    "cwd!": str,
    "env": [str],
    "args!": [str],
    "rlimits": [
        {"type!": _OneOf(f"RLIMIT_{name}" for name in RLIMITS), "soft!": _LIMIT, "hard!": _LIMIT}
    ],
    "apparmorProfile": str,
    "selinuxLabel": str,
    "capabilities": {
        "bounding": [str], "effective": [str], "permitted": [str], "inheritable": [str], "ambient": [str]
    },
    "noNewPrivileges": bool,
    "oomScoreAdj": _Integer(-1000, 1000),
    "scheduler": {
        "policy!": _OneOf(SCHEDULERS), "nice": _Integer(-20, 19), "priority": _I32,
        "flags": [_OneOf(SCHEDULER_FLAGS)], "runtime": _U64, "deadline": _U64, "period": _U64,
    },
    "ioPriority": {"class!": _OneOf(IO_CLASSES), "priority": _Integer(0, 7)},
    "execCPUAffinity": {"initial": str, "final": str},
    "user": {"uid": _ID, "gid": _ID, "umask": _Integer(0, 0o777), "additionalGids": [_ID]},
}  # fmt: skip
RESOURCES = {
    "devices": [
        {"allow!": bool, "type": _OneOf("abc"), "major": _I64, "minor": _I64, "access": str}
    ],
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _I64),
        "swappiness": _Integer(0, 200), "disableOOMKiller": bool, "useHierarchy": bool,
        "checkBeforeUpdate": bool,
    },
    "cpu": {
        "shares": _U64, "quota": _I64, "burst": _U64, "period": _U64, "realtimeRuntime": _I64,
        "realtimePeriod": _U64, "cpus": str, "mems": str, "idle": _Integer(0, 1),
    },
    "pids": {"limit": _I64},
    "blockIO": {
        "weight": _U16, "leafWeight": _U16, "weightDevice": [_WEIGHT], "throttleReadBpsDevice": _RATE,
        "throttleWriteBpsDevice": _RATE, "throttleReadIOPSDevice": _RATE, "throttleWriteIOPSDevice": _RATE,
    },
    "hugepageLimits": [{"pageSize!": str, "limit!": _U64}],
    "network": {"classID": _U32, "priorities": [{"name!": str, "priority!": _U32}]},
    "rdma": _Map({"hcaHandles": _U32, "hcaObjects": _U32}),
    "unified": _Map(str),
}  # fmt: skip
_SECCOMP = {
    "defaultAction!": str,
    "defaultErrnoRet": _U32,
    "architectures": [str],
    "flags": [str],
    "listenerPath": str,
    "listenerMetadata": str,
    "syscalls": [
        {"names!": [str], "action!": str, "errnoRet": _U32,
         "args": [{"index!": _Integer(0, 5), "value!": _U64, "valueTwo": _U64, "op!": str}]}
    ],
}  # fmt: skip
_LINUX = {
    "namespaces": [{"type!": _OneOf(TYPES), "path": str}],
    "uidMappings": _ID_MAP,
    "gidMappings": _ID_MAP,
    "timeOffsets": _Map({"secs": _I64, "nanosecs": _U32}),
    "devices": [
        {"type!": _OneOf("cubp"), "path!": str, "major": _I64, "minor": _I64,
         "fileMode": _Integer(0, 0o177777), "uid": _ID, "gid": _ID}
    ],
    "netDevices": _Map({"name": str}),
    "cgroupsPath": str,
    "resources": RESOURCES,
    "intelRdt": _Map(object),
    "memoryPolicy": {"mode!": _OneOf(MEMORY_POLICIES), "nodes": str, "flags": [_OneOf(MEMORY_POLICY_FLAGS)]},
    "sysctl": _Map(str),
    "seccomp": _SECCOMP,
    "rootfsPropagation": _OneOf(("", *_PROPAGATION)),
    "maskedPaths": [str],
    "readonlyPaths": [str],
    "mountLabel": str,
    "personality": {"domain!": _OneOf(PERSONALITIES), "flags": [str]},
}  # fmt: skip
_CONFIG = {
    "ociVersion!": str,
    "root": {"path!": str, "readonly": bool},
    "mounts": [
        {"destination!": str, "source": str, "type": str, "options": [str],
         "uidMappings": _ID_MAP, "gidMappings": _ID_MAP}
    ],
    "process": _PROCESS,
    "hostname": str,
    "domainname": str,
    "hooks": dict.fromkeys(HOOKS, _HOOK),
    "annotations": _Map(str),
    "linux": _LINUX,
}  # fmt: skip
_WORDS = {str: "a string", bool: "true or false", dict: "an object", list: "a list"}


def _fail(where: str, what: str) -> InvalidContent:
    return InvalidContent(f"config.json: {where} {what}")


def conform(value: Any, rule: Any, where: str) -> None:
    """Check a value of a parsed document against a rule of the table.

    Raises:
        InvalidContent: it has the wrong type, is out of bounds, or lacks a required property.
    """
    if value is None or rule is object:
        return  # null is as good as absent, as the reference implementation writes it
    _CHECKS.get(type(rule), _conform_plain)(value, rule, where)


def _conform_plain(value: Any, rule: Any, where: str) -> None:
    if type(value) is not rule:
        raise _fail(where, f"is not {_WORDS[rule]}")
    if rule is str and not jsonfast.is_text(value):
        raise _fail(where, "has a NUL character or half a surrogate pair in it")


def _conform_list(value: Any, rule: list[Any], where: str) -> None:
    if not isinstance(value, list):
        raise _fail(where, "is not a list")
    # A seccomp profile has names by the hundred.
    if rule[0] is str and all(type(item) is str for item in value) and jsonfast.is_text("".join(value)):
        return
    for position, item in enumerate(value):
        if item is None:
            raise _fail(f"{where}[{position}]", "is null")
        conform(item, rule[0], f"{where}[{position}]")


def _conform_map(value: Any, rule: _Map, where: str) -> None:
    if not isinstance(value, dict):
        raise _fail(where, "is not an object")
    for name, item in value.items():
        conform(item, rule.rule, f"{where}.{name}")


def _conform_integer(value: Any, rule: _Integer, where: str) -> None:
    if type(value) is not int or not rule.low <= value <= rule.high:
        raise _fail(where, f"is not an integer from {rule.low} to {rule.high}")


def _conform_choice(value: Any, rule: _OneOf, where: str) -> None:
    if type(value) is not str or value not in rule.values:
        raise _fail(where, f"is {value!r}, which is not one of {', '.join(sorted(rule.values))}")


def _conform_object(value: Any, rule: dict[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise _fail(where, "is not an object")
    for name, below in rule.items():
        required = name[-1] == "!"
        key = name[:-1] if required else name
        if key in value:
            conform(value[key], below, f"{where}.{key}")
        if required and value.get(key) is None:
            raise _fail(f"{where}.{key}", "is missing")


_CHECKS: dict[type, Callable[[Any, Any, str], None]] = {
    dict: _conform_object,
    list: _conform_list,
    _Map: _conform_map,
    _Integer: _conform_integer,
    _OneOf: _conform_choice,
}


def check(config: Any) -> dict[str, Any]:
    """Check a whole config.json.

    Raises:
        InvalidContent: a value is invalid.
        Unsupported: it asks for what this runtime does not have.
    """
    if not isinstance(config, dict):
        raise InvalidContent("config.json is not an object")
    conform(config, _CONFIG, "config")
    check_version(config["ociVersion"])
    if not (config.get("root") or {}).get("path"):
        raise _fail("root.path", "is missing")
    if config.get("process"):
        check_process(config["process"])
    if "" in (config.get("annotations") or {}):
        raise _fail("annotations", "has an empty key")
    for position, mount in enumerate(config.get("mounts") or []):
        _check_mount(mount, f"mounts[{position}]")
    for name, hooks in (config.get("hooks") or {}).items():
        for hook in hooks or []:
            _check_hook(hook, name)
    _check_linux(config.get("linux") or {}, config)
    return config


def check_version(version: str) -> None:
    """Check `ociVersion`: "MUST be in SemVer v2.0.0 format"; every 1.x is understood.

    Raises:
        InvalidContent: it is no version. Unsupported: it is another major version.
    """
    numbers = version.partition("+")[0].partition("-")[0].split(".")
    if len(numbers) != 3 or not all(part.isascii() and part.isdigit() for part in numbers):
        raise _fail("ociVersion", f"is {version!r}, which is not a version such as {VERSION}")
    if int(numbers[0]) != 1:
        raise Unsupported(f"config.json: ociVersion {version} is not supported, only 1.x is")


def check_process(process: Any) -> dict[str, Any]:
    """Check a `process`, of config.json or of exec.

    Raises:
        InvalidContent: a value is invalid.
    """
    conform(process, _PROCESS, "process")
    found: dict[str, Any] = process
    # "This value MUST be an absolute path."
    if not found["cwd"].startswith("/"):
        raise _fail("process.cwd", f"is {found['cwd']!r}, which is not an absolute path")
    # "at least one entry is REQUIRED"
    if not found["args"]:
        raise _fail("process.args", "is empty")
    types = [limit["type"] for limit in found.get("rlimits") or []]
    # "If rlimits contains duplicated entries with same type, the runtime MUST generate an error."
    for kind in types:
        if types.count(kind) > 1:
            raise _fail("process.rlimits", f"has {kind} twice")
    return found


def _check_mount(mount: dict[str, Any], where: str) -> None:
    options = mount.get("options") or []
    mapped = [bool(mount.get(key)) for key in ("uidMappings", "gidMappings")]
    # "If specified, it MUST be specified along with gidMappings." - and the other way round
    if mapped[0] != mapped[1]:
        raise _fail(where, "has only one of uidMappings and gidMappings")
    if mapped[0] and not any(name in options for name in ("bind", "rbind")):
        raise Unsupported(f"config.json: {where}: only bind mounts can be id-mapped")
    if not mount["destination"]:
        raise _fail(f"{where}.destination", "is empty")


def _check_hook(hook: dict[str, Any], name: str) -> None:
    # "path ... MUST be an absolute path", "timeout ... MUST be greater than zero"
    if not hook["path"].startswith("/"):
        raise _fail(f"hooks.{name}", f"has the path {hook['path']!r}, which is not absolute")
    unnamed = any(item[:1] in ("", "=") for item in hook.get("env") or [])
    if unnamed or (hook.get("args") or ["-"])[0] == "":
        raise _fail(f"hooks.{name}", "has a variable or a program without a name")
    if hook.get("timeout") is not None and hook["timeout"] <= 0:
        raise _fail(f"hooks.{name}", "has a timeout that is not greater than zero")


def _check_net_devices(devices: dict[str, Any], kinds: dict[str, str | None]) -> None:
    from .netdevices import check

    if "network" not in kinds:
        raise _fail("linux.netDevices", "needs a network namespace")
    check(devices)


def _check_linux(linux: dict[str, Any], config: dict[str, Any]) -> None:
    kinds = {entry["type"]: entry.get("path") for entry in linux.get("namespaces") or []}
    if linux.get("intelRdt"):
        raise Unsupported("config.json: linux.intelRdt is not supported")
    if linux.get("netDevices"):
        _check_net_devices(linux["netDevices"], kinds)
    if (linux.get("personality") or {}).get("flags"):
        raise Unsupported("config.json: linux.personality.flags is not supported")
    if "mount" not in kinds:
        from . import hostmounts

        hostmounts.check(config, kinds)
    _check_namespaces(linux, kinds, config)
    _check_mappings(linux, kinds, config)
    for device in linux.get("devices") or []:
        if device["type"] != "p" and (device.get("major") is None or device.get("minor") is None):
            raise _fail(f"linux.devices {device['path']}", "has no major and minor number")
    for key in ("maskedPaths", "readonlyPaths"):
        for path in linux.get(key) or []:
            # "The values MUST be absolute paths in the container namespace."
            if not path.startswith("/"):
                raise _fail(f"linux.{key}", f"has {path!r}, which is not an absolute path")
    _check_sysctl(linux, kinds)


def _check_namespaces(linux: dict[str, Any], kinds: dict[str, str | None], config: dict[str, Any]) -> None:
    """Refuse what would change a namespace that is not the container's."""
    if linux.get("timeOffsets") and "time" not in kinds:
        raise _fail("linux.timeOffsets", "is given without a time namespace")
    for clock in linux.get("timeOffsets") or {}:
        if clock not in ("monotonic", "boottime"):
            raise _fail("linux.timeOffsets", f"has {clock!r}, which is not a clock that can be moved")
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in kinds:
            raise _fail(name, "is given without a uts namespace")


def _check_mappings(linux: dict[str, Any], kinds: dict[str, str | None], config: dict[str, Any]) -> None:
    mapped = [bool(linux.get(key)) for key in ("uidMappings", "gidMappings")]
    if any(mapped) and "user" not in kinds:
        raise _fail("linux.uidMappings", "is given without a user namespace")
    if "user" in kinds and not kinds["user"] and not all(mapped):
        raise _fail("linux.uidMappings", "and gidMappings are missing for the new user namespace")
    for mount in config.get("mounts") or []:
        wanted = [name for name in ("idmap", "ridmap") if name in (mount.get("options") or [])]
        if wanted and not mount.get("uidMappings") and "user" not in kinds:
            raise _fail(f"the mount on {mount['destination']}", f"has the option {wanted[0]} and no mapping")


_IPC_KEYS = frozenset(
    "kernel." + name
    for name in (
        "msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced", "auto_msgmni",
        "msg_next_id", "sem_next_id", "shm_next_id",
    )
)  # fmt: skip


def _check_sysctl(linux: dict[str, Any], kinds: dict[str, str | None]) -> None:
    """Refuse a sysctl that is not of a namespace of the container: it would change the host."""
    for key in linux.get("sysctl") or {}:
        name = key.replace("/", ".")
        if name in _IPC_KEYS or name.startswith("fs.mqueue."):
            needed = "ipc"
        elif name.startswith("net."):
            needed = "network"
        elif name == "kernel.domainname":
            needed = "uts"
        elif name == "kernel.hostname":
            raise _fail(f"linux.sysctl {key}", "conflicts with hostname")
        else:
            raise _fail(f"linux.sysctl {key}", "is not of a namespace, so it would change the host")
        if needed not in kinds:
            raise _fail(f"linux.sysctl {key}", f"needs a {needed} namespace")
        if ".." in key:
            raise _fail(f"linux.sysctl {key}", "has '..' in it")
