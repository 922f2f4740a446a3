"""Command-line options that engines share (`-e`, `-v`, `--read-only` ...), put onto a config.json.

`apply` writes no file, and reads none but those that an option names: what it needs to know of the image is
in the config.json that it gets, and names of users and groups must have been looked up before.
"""

from __future__ import annotations

from ocitool.defaults import hostname
from ocitool.errors import InvalidReference

from . import confining
from .capabilities import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_NOTHING: Mapping[str, str] = {}
_LIMITS = (
    "memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpu_period", "cpu_quota",
    "cpuset_cpus", "cpuset_mems", "pids_limit", "ulimits", "oom_score_adj", "shm_size",
    "memory_swappiness", "cpu_rt_period", "cpu_rt_runtime",
)  # fmt: skip
_OF_DISKS = (
    "blkio_weight", "blkio_weight_device", "device_read_bps", "device_read_iops", "device_write_bps",
    "device_write_iops",
)  # fmt: skip


class RunOptions:
    """What a person asked for, in the words of the command line; None or empty leaves it to the image.

    Attributes:
        args: the command; it replaces the image's.
        entrypoint: replaces the image's entry point; an empty string removes it.
        image_entrypoint, image_cmd: of the image, from which the command is put together.
        image_volumes: of the image, which stay writable where its root is not.
        as_engines: for an image, where nobody has decided otherwise: a setuid program may gain privileges,
            the user's own group is one of the supplementary ones as well, and whoever the user is may listen
            on any port of a network of the container's own.
        env: `NAME=value`, or `NAME` to take the value from `host_env`.
        host_env: the caller's environment; with `env_host`, all that the image has no variable of.
        unsetenv: names of the image's variables that are left out; with `unsetenv_all`, all are.
        user: `uid[:gid]`, in numbers; names are the caller's to look up.
        groups: by name or number, besides the image's supplementary ones; the caller's to look up.
        additional_gids: the same in numbers.
        umask: in octal digits.
        personality: "LINUX" or "LINUX32".
        hostname, domainname: what the container calls itself.
        volumes: `SOURCE:DESTINATION[:MODE,...]`, the source absolute; `DESTINATION` for one of its own.
        tmpfs: `DESTINATION[:OPTION,...]`.
        mounts: `type=bind|tmpfs|volume,target=DESTINATION[,NAME=VALUE,...]`.
        devices: `HOST[:CONTAINER][:ACCESS]`.
        device_rules: `TYPE MAJOR:MINOR ACCESS`, for devices that come later.
        init: start the command through a program that collects orphans and passes signals on.
        privileged: give it all that the caller may give.
        all_capabilities: what the caller may give.
        memory: bytes, with the units b, k, m and g. cpus: a number of CPUs, which may be a fraction. Of
            these two and of `pids_limit`, 0 is no limit.
        counts_swap: whether the host does. A limit of memory is then one of as much swap besides, as engines
            have it, or a container could grow on into the swap.
        oom_kill_disable: its processes wait where memory runs out.
        blkio_weight_device: `DEVICE:WEIGHT`. device_read_bps and the three like it: `DEVICE:RATE`.
        cgroup_conf: `FILE=VALUE`, of cgroup version 2.
        cgroup_parent: the cgroup that the one of the container, named by `container_id`, is made in.
        ulimits: `NAME=SOFT[:HARD]`.
        sysctls: `NAME=VALUE`.
        network: "none" (a new, empty one), "host", or what connects a new one: see `networks`.
        cgroupns, ipc, pid, uts: "host" for the host's own namespace; of ipc, "none" for no shared memory.
        security_opt: `no-new-privileges[=true|false]`, `seccomp=unconfined|builtin|FILE`, `label=disable`,
            `apparmor=PROFILE`, `mask=PATH`, `unmask=ALL|PATH`, `systempaths=unconfined`.
        labels: annotations, `NAME[=VALUE]`.
    """

    args: tuple[str, ...] | None = None
    entrypoint: str | None = None
    image_entrypoint: tuple[str, ...] = ()
    image_cmd: tuple[str, ...] = ()
    image_volumes: tuple[str, ...] = ()
    as_engines: bool = False
    env: tuple[str, ...] = ()
    host_env: Mapping[str, str] = _NOTHING
    env_host: bool = False
    unsetenv: tuple[str, ...] = ()
    unsetenv_all: bool = False
    cwd: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()
    additional_gids: tuple[int, ...] = ()
    umask: str | None = None
    personality: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    volumes: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    device_rules: tuple[str, ...] = ()
    init: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    all_capabilities: tuple[str, ...] = tuple(NAMES)
    memory: str | None = None
    memory_swap: str | None = None
    memory_reservation: str | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    counts_swap: bool = False
    cpus: str | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    blkio_weight: int | None = None
    blkio_weight_device: tuple[str, ...] = ()
    device_read_bps: tuple[str, ...] = ()
    device_read_iops: tuple[str, ...] = ()
    device_write_bps: tuple[str, ...] = ()
    device_write_iops: tuple[str, ...] = ()
    cgroup_conf: tuple[str, ...] = ()
    cgroup_parent: str | None = None
    container_id: str = ""
    ulimits: tuple[str, ...] = ()
    oom_score_adj: int | None = None
    shm_size: str | None = None
    sysctls: tuple[str, ...] = ()
    network: str | None = None
    cgroupns: str | None = None
    ipc: str | None = None
    pid: str | None = None
    uts: str | None = None
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    security_opt: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

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
    before = confining.bounding(config)
    _set_command(process, options)
    _set_init(process, options)
    _set_environment(process, options)
    _set_user(process, options)
    if options.cwd is not None:
        process["cwd"] = _absolute(options.cwd, "working directory")
    _set_umask(process, options)
    if options.personality is not None:
        linux["personality"] = {"domain": options.personality}
    _set_terminal(process, options)
    _set_network(linux, options)
    _set_names(result, options)
    _share_namespaces(result, options)
    _set_mounts(result, options)
    if options.read_only:
        result.setdefault("root", {})["readonly"] = True
    if options.as_engines:
        process["noNewPrivileges"] = False
        _join_own_group(process, linux)
        _open_ports(linux)
    confining.confine(result, options, before)
    if options.oom_kill_disable or any(getattr(options, name) not in (None, ()) for name in _LIMITS):
        from . import limiting

        limiting.limit(result, options)
    if any(getattr(options, name) for name in _OF_DISKS):
        from . import blockio

        blockio.limit(linux.setdefault("resources", {}), options)
    if options.cgroup_conf:
        _set_pairs(linux.setdefault("resources", {}), "unified", options.cgroup_conf)
    if options.cgroup_parent:
        linux["cgroupsPath"] = f"{options.cgroup_parent}/{options.container_id}"
    if options.devices or options.device_rules:
        from . import devices

        devices.add(result, [device for text in options.devices for device in devices.named(text)])
        devices.allow(linux, options.device_rules)
    _set_pairs(linux, "sysctl", options.sysctls)
    _set_pairs(result, "annotations", options.labels)
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
    env = dict(options.host_env) if options.env_host else {}
    for item in () if options.unsetenv_all else process.get("env") or ():
        name, _, value = item.partition("=")
        if name not in options.unsetenv:
            env[name] = value
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


def _set_user(process: dict[str, Any], options: RunOptions) -> None:
    if options.user is not None:
        uid, has_gid, gid = options.user.partition(":")
        process["user"] = {"uid": _id(uid, options.user), "gid": _id(gid, options.user) if has_gid else 0}
    if options.additional_gids:
        user = process.setdefault("user", {"uid": 0, "gid": 0})
        user["additionalGids"] = list(
            dict.fromkeys((*(user.get("additionalGids") or ()), *options.additional_gids))
        )


def _set_umask(process: dict[str, Any], options: RunOptions) -> None:
    text = options.umask
    if text is None:
        return
    if not 0 < len(text) <= 4 or not {*text} <= {*"01234567"} or int(text, 8) > 0o777:
        raise InvalidReference(f"--umask {text!r} is not up to 0777 in octal digits")
    process.setdefault("user", {"uid": 0, "gid": 0})["umask"] = int(text, 8)


def _join_own_group(process: dict[str, Any], linux: dict[str, Any]) -> None:
    """Make a user's group one of the supplementary ones: to drop it takes a privilege then (CVE-2022-36109).

    In a user namespace with a single group nobody can have others.
    """
    user = process.get("user") or {}
    mapped = sum(entry["size"] for entry in linux.get("gidMappings") or [])
    if mapped != 1 and user.get("uid"):
        groups = (user.get("gid", 0), *(user.get("additionalGids") or ()))
        user["additionalGids"] = list(dict.fromkeys(groups))


def _open_ports(linux: dict[str, Any]) -> None:
    """Let a program that is not root listen on any port of a network of its own, as docker does."""
    if any(entry["type"] == "network" and not entry.get("path") for entry in linux.get("namespaces") or []):
        opened = {"net.ipv4.ip_unprivileged_port_start": "0"}
        linux["sysctl"] = {**opened, **(linux.get("sysctl") or {})}


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
    image_volumes = options.image_volumes if options.read_only else ()
    if not (options.volumes or options.tmpfs or options.mounts or options.init or image_volumes):
        return
    from . import volumes

    added = [
        *(volumes.volume(item) for item in options.volumes),
        *(volumes.tmpfs(item) for item in options.tmpfs),
        *(volumes.mount(item) for item in options.mounts),
    ]
    if options.init:
        added.append(volumes.init_program())
    places = [mount["destination"] for mount in added]
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise InvalidReference(f"more than one mount is asked for on {twice[0]}")
    kept = [mount for mount in config.get("mounts") or [] if mount["destination"] not in places]
    places += [mount["destination"] for mount in kept]
    added += [mount for mount in volumes.of_image(image_volumes) if mount["destination"] not in places]
    config["mounts"] = volumes.ordered(kept, added)


def _set_network(linux: dict[str, Any], options: RunOptions) -> None:
    if options.network is None:
        return
    from .networks import check

    kind, _ = check(options.network)
    kept = [entry for entry in linux.get("namespaces") or [] if entry["type"] != "network"]
    if kind != "host":
        kept.append({"type": "network"})
    linux["namespaces"] = kept


def _set_names(config: dict[str, Any], options: RunOptions) -> None:
    for kind in ("hostname", "domainname"):
        name = getattr(options, kind)
        if name is not None:
            if options.uts == "host":
                raise InvalidReference(
                    f"--{kind} and --uts host exclude each other: the names are the host's"
                )
            config[kind] = hostname(name)


def _share_namespaces(config: dict[str, Any], options: RunOptions) -> None:
    """Leave out namespaces that are to be the host's, with what belongs to one of the container's own."""
    asked = {"cgroup": options.cgroupns, "ipc": options.ipc, "pid": options.pid, "uts": options.uts}
    shared = [kind for kind, choice in asked.items() if choice == "host"]
    linux = config["linux"]
    linux["namespaces"] = [entry for entry in linux.get("namespaces") or [] if entry["type"] not in shared]
    if "uts" in shared:
        config.pop("hostname", None)
        config.pop("domainname", None)
    if options.ipc in ("host", "none"):
        from . import volumes

        changed = volumes.of_ipc if options.ipc == "host" else volumes.without_shared_memory
        config["mounts"] = changed(config.get("mounts") or [])


def _set_pairs(document: dict[str, Any], key: str, texts: tuple[str, ...]) -> None:
    if not texts:
        return
    pairs = dict(text.partition("=")[::2] for text in texts)
    if "" in pairs:
        raise InvalidReference(f"{texts[list(pairs).index('')]!r} has no name before its value")
    document[key] = {**(document.get(key) or {}), **pairs}
