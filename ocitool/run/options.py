"""Command-line options that engines share (`-e`, `-v`, `--read-only` ...), put onto a config.json.

`apply` reads and writes no file: what it needs to know of the image is in the config.json that it
gets, and names of users must have been looked up before.
"""

from __future__ import annotations

from ocitool.defaults import hostname
from ocitool.errors import InvalidReference, Unsupported

from . import capabilities, defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_PERIOD = 100_000
_LEAST_QUOTA = 1000
_LEAST_MEMORY = 6 << 20  # as docker has it
_NOTHING: Mapping[str, str] = {}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class RunOptions:
    """What a person asked for, in the words of the command line; None or empty leaves it to the image.

    Attributes:
        args: the command; it replaces the image's.
        entrypoint: replaces the image's entry point; an empty string removes it.
        image_entrypoint, image_cmd: of the image, from which the command is put together.
        env: `NAME=value`, or `NAME` to take the value from `host_env`.
        host_env: the caller's environment.
        user: `uid[:gid]`, in numbers; names are the caller's to look up.
        additional_gids: supplementary groups.
        volumes: `SOURCE:DESTINATION[:MODE,...]`, the source absolute; `DESTINATION` for one of its own.
        tmpfs: `DESTINATION[:OPTION,...]`.
        mounts: `type=bind|tmpfs,target=DESTINATION[,NAME=VALUE,...]`.
        init: start the command through a program that collects orphans and passes signals on.
        memory: bytes, with the units b, k, m and g. cpus: a number of CPUs, which may be a fraction. Of
            these two and of `pids_limit`, 0 is no limit.
        counts_swap: whether the host does. A limit of memory is then one of as much swap besides, as engines
            have it, or a container could grow on into the swap.
        network: "none" (a new, empty one), "host", or what connects a new one: see `networks`.
        default_seccomp: give a container without a seccomp profile the default one. The default one changes
            with the capabilities that are added or dropped.
        single_user: the caller's own uid and gid, to be root of a new user namespace.
        security_opt: `no-new-privileges[=true|false]`, `seccomp=unconfined|builtin|FILE`, `label=disable`,
            `apparmor=PROFILE`, `mask=PATH`, `unmask=ALL|PATH`, `systempaths=unconfined`.
    """

    args: tuple[str, ...] | None = None
    entrypoint: str | None = None
    image_entrypoint: tuple[str, ...] = ()
    image_cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    host_env: Mapping[str, str] = _NOTHING
    cwd: str | None = None
    user: str | None = None
    additional_gids: tuple[int, ...] = ()
    hostname: str | None = None
    volumes: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    init: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    memory: str | None = None
    counts_swap: bool = False
    cpus: str | None = None
    pids_limit: int | None = None
    network: str | None = None
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    security_opt: tuple[str, ...] = ()
    annotations: Mapping[str, str] = _NOTHING
    single_user: tuple[int, int] | None = None
    default_seccomp: bool = True

    def __init__(self, **given: Any) -> None:
        """Take what was asked for, by the names above."""
        for name, value in given.items():
            if name not in RunOptions.__annotations__:
                raise TypeError(f"there is no option {name!r}")
            setattr(self, name, value)

    def but(self, **changes: Any) -> RunOptions:
        """The same with some changes."""
        return RunOptions(**{**vars(self), **changes})


def apply(config: dict[str, Any], options: RunOptions) -> dict[str, Any]:
    """A copy of `config` that does what `options` say.

    Raises:
        InvalidReference: an option is not well-formed (exit code 2: it is what the user typed).
        Unsupported: it asks for what this runtime does not have.
    """
    result: dict[str, Any] = _copy(config)
    process = result.setdefault("process", {})
    linux = result.setdefault("linux", {})
    _set_command(process, options)
    _set_init(process, options)
    _set_environment(process, options)
    _set_user(process, options)
    if options.cwd is not None:
        process["cwd"] = _absolute(options.cwd, "working directory")
    if options.hostname is not None:
        result["hostname"] = hostname(options.hostname)
    _set_terminal(process, options)
    _set_mounts(result, options)
    if options.read_only:
        result.setdefault("root", {})["readonly"] = True
    _set_capabilities(process, options)
    _set_limits(linux, options)
    _set_network(result, options)
    _set_seccomp(linux, options, _bounding(config), _bounding(result))
    for item in options.security_opt:
        _set_security(process, linux, item)
    if options.single_user is not None:
        _set_single_user(result, options.single_user)
    if options.annotations:
        result.setdefault("annotations", {}).update(options.annotations)
    return result


def _copy(value: Any) -> Any:
    """A document of its own; `copy.deepcopy` takes as long to load as all of this."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _absolute(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise InvalidReference(f"the {what} {path!r} is not an absolute path")
    return path


def _set_command(process: dict[str, Any], options: RunOptions) -> None:
    """Entry point and command, as engines combine them: a new entry point drops the image's command."""
    if options.entrypoint is None and options.args is None:
        return
    if options.entrypoint is not None:
        head = [options.entrypoint] if options.entrypoint else []
        tail = list(options.args or ())
    else:
        head = list(options.image_entrypoint)
        tail = list(options.args or options.image_cmd)
    if not head + tail:
        raise InvalidReference("no command is given, and the image has none")
    process["args"] = head + tail


def _set_init(process: dict[str, Any], options: RunOptions) -> None:
    if options.init:
        from . import volumes

        process["args"] = [volumes.INIT, "--", *process["args"]]


def _set_environment(process: dict[str, Any], options: RunOptions) -> None:
    env = dict(item.partition("=")[::2] for item in process.get("env") or [])
    for item in options.env:
        name, given, value = item.partition("=")
        if not name:
            raise InvalidReference(f"environment variable {item!r} has no name")
        if given:
            env[name] = value
        elif name in options.host_env:
            env[name] = options.host_env[name]
        else:
            env.pop(name, None)
    if options.terminal:
        env.setdefault("TERM", "xterm")
    process["env"] = [f"{name}={value}" for name, value in env.items()]


def _bounding(config: dict[str, Any]) -> tuple[str, ...]:
    sets = (config.get("process") or {}).get("capabilities") or {}
    return tuple(sets.get("bounding") or ())


def _set_seccomp(
    linux: dict[str, Any], options: RunOptions, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """The default profile goes with the capabilities; one that somebody else wrote stays as it is."""
    is_default = linux.get("seccomp") == defaults.seccomp_profile(before)
    if options.privileged and is_default:
        del linux["seccomp"]
    elif not options.privileged and (is_default or (options.default_seccomp and "seccomp" not in linux)):
        linux["seccomp"] = defaults.seccomp_profile(after)


def _set_user(process: dict[str, Any], options: RunOptions) -> None:
    if options.user is not None:
        uid, has_gid, gid = options.user.partition(":")
        process["user"] = {"uid": _id(uid, options.user), "gid": _id(gid, options.user) if has_gid else 0}
    if options.additional_gids:
        process.setdefault("user", {"uid": 0, "gid": 0})["additionalGids"] = list(options.additional_gids)


def _id(text: str, whole: str) -> int:
    # isdigit() alone also takes digits of other scripts (RN-12).
    if not (text.isascii() and text.isdigit()) or int(text) > 0x7FFFFFFF:
        raise InvalidReference(f"user {whole!r} is not UID or UID:GID in numbers up to 2147483647")
    return int(text)


def _set_terminal(process: dict[str, Any], options: RunOptions) -> None:
    process["terminal"] = options.terminal
    process.pop("consoleSize", None)
    if options.terminal and options.console_size is not None:
        process["consoleSize"] = {"height": options.console_size[0], "width": options.console_size[1]}


def _set_mounts(config: dict[str, Any], options: RunOptions) -> None:
    """Add volumes and tmpfs after the default mounts; one on the same destination takes its place.

    As with docker, their order on the command line does not matter: what lies below another comes after it.
    """
    if not (options.volumes or options.tmpfs or options.mounts or options.init):
        return
    from . import volumes

    added = [
        *(volumes.volume(item) for item in options.volumes),
        *(volumes.tmpfs(item) for item in options.tmpfs),
        *(volumes.mount(item) for item in options.mounts),
    ]
    if options.init:
        added.append(volumes.init_program())
    replaced = {mount["destination"] for mount in added}
    if len(replaced) < len(added):
        places = [mount["destination"] for mount in added]
        twice = next(place for place in places if places.count(place) > 1)
        raise InvalidReference(f"more than one mount is asked for on {twice}")
    added.sort(key=lambda mount: mount["destination"].count("/"))
    kept = [mount for mount in config.get("mounts") or [] if mount["destination"] not in replaced]
    config["mounts"] = kept + added


def _capability(name: str) -> str:
    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full not in capabilities.NAMES:
        raise InvalidReference(f"{name!r} is not a capability")
    return full


def _set_capabilities(process: dict[str, Any], options: RunOptions) -> None:
    """Engines' rules: ALL first, then what is added, then what is dropped; none is inheritable (RN-10)."""
    if not (options.cap_add or options.cap_drop or options.privileged):
        return
    sets = process.get("capabilities") or {}
    chosen = set(sets.get("bounding") or [])
    add, drop = (tuple(name.upper() for name in names) for names in (options.cap_add, options.cap_drop))
    if options.privileged or "ALL" in add:
        chosen = set(capabilities.NAMES)
    if "ALL" in drop:
        chosen = set()
    chosen |= {_capability(name) for name in add if name != "ALL"}
    chosen -= {_capability(name) for name in drop if name != "ALL"}
    listed = [name for name in capabilities.NAMES if name in chosen]
    process["capabilities"] = {kind: list(listed) for kind in ("bounding", "effective", "permitted")}


def size(text: str) -> int:
    """A size in bytes, such as 64m or 1g.

    Raises:
        InvalidReference: it is not one.
    """
    number = text.rstrip("bBiIkKmMgGtT")
    unit = text[len(number) :].lower()
    # As docker reads them: 64m, 64mb and 64MiB are the same, and there are fractions.
    unit = unit.removesuffix("ib") if len(unit) == 3 else unit.removesuffix("b")
    whole, _, part = number.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or unit not in _UNITS:
        raise InvalidReference(f"{text!r} is not a size such as 64m or 1.5g")
    return int(whole or 0) * _UNITS[unit] + int(float(f"0.{part or 0}") * _UNITS[unit])


def _set_limits(linux: dict[str, Any], options: RunOptions) -> None:
    resources = linux.setdefault("resources", {})
    limit = size(options.memory) if options.memory is not None else 0
    if 0 < limit < _LEAST_MEMORY:
        raise InvalidReference(f"{options.memory!r} is less memory than a container can start with: 6m")
    if limit:
        resources["memory"] = {**(resources.get("memory") or {}), "limit": limit}
        if options.counts_swap:
            resources["memory"]["swap"] = 2 * limit
    quota = _quota(options.cpus)
    if quota:
        resources["cpu"] = {**(resources.get("cpu") or {}), "quota": quota, "period": _PERIOD}
    if options.pids_limit is not None and options.pids_limit > 0:
        resources["pids"] = {"limit": options.pids_limit}
    elif options.pids_limit is not None:
        resources.pop("pids", None)  # who has no cgroup has no limit either


def _quota(cpus: str | None) -> int:
    """Microseconds of a period for a number of CPUs; 0 for no limit."""
    try:
        quota = int(float(cpus or 0) * _PERIOD)
    except (ValueError, OverflowError) as exc:
        raise InvalidReference(f"{cpus!r} is not a number of CPUs") from exc
    if quota < 0 or 0 < quota < _LEAST_QUOTA or (not quota and cpus and float(cpus)):
        raise InvalidReference(f"{cpus!r} CPUs are fewer than the kernel can give (0.01)")
    return quota


def _set_network(config: dict[str, Any], options: RunOptions) -> None:
    if options.network is None:
        return
    from .networks import check

    kind, _ = check(options.network)
    linux = config["linux"]
    kept = [entry for entry in linux.get("namespaces") or [] if entry["type"] != "network"]
    if kind != "host":
        kept.append({"type": "network"})
    linux["namespaces"] = kept


def _set_security(process: dict[str, Any], linux: dict[str, Any], item: str) -> None:
    name, _, value = item.replace(":", "=", 1).partition("=") if "=" not in item else item.partition("=")
    if name == "no-new-privileges" and value in ("", "true", "false"):
        process["noNewPrivileges"] = value != "false"
    elif name == "seccomp" and value:
        _choose_profile(process, linux, value)
    elif name == "label" and value == "disable":
        process.pop("selinuxLabel", None)
        linux.pop("mountLabel", None)
    elif name == "apparmor" and value:
        process.pop("apparmorProfile", None)
        if value != "unconfined":
            process["apparmorProfile"] = value
    elif name == "mask" and value:
        linux["maskedPaths"] = [*(linux.get("maskedPaths") or []), *value.split(":")]
    elif (name == "unmask" and value.upper() == "ALL") or (name, value) == ("systempaths", "unconfined"):
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
    elif name == "unmask" and value:
        for key in ("maskedPaths", "readonlyPaths"):
            shown = value.split(":")
            linux[key] = [path for path in linux.get(key) or [] if path not in shown]
    else:
        raise Unsupported(f"security option {item!r} is not supported")


def _choose_profile(process: dict[str, Any], linux: dict[str, Any], value: str) -> None:
    """As docker: "builtin" is what stands there, and anything else but "unconfined" is a file."""
    if value == "unconfined":
        linux.pop("seccomp", None)
    elif value != "builtin":
        import posix

        from . import profiles

        bounding = (process.get("capabilities") or {}).get("bounding") or ()
        host = posix.uname()
        linux["seccomp"] = profiles.load(value, bounding, host.machine, host.release)


def _set_single_user(config: dict[str, Any], ids: tuple[int, int]) -> None:
    """Let an ordinary user run it: their id is root of a new user namespace, and the only one there."""
    linux = config["linux"]
    kinds = [entry["type"] for entry in linux.get("namespaces") or []]
    if "user" not in kinds:
        linux["namespaces"] = [*(linux.get("namespaces") or []), {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": ids[0], "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": ids[1], "size": 1}]
