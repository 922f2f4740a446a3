"""What a container is kept from: capabilities, system calls, labels, paths, devices, as command lines say."""

from __future__ import annotations

from ocitool.errors import InvalidReference, Unsupported

from . import capabilities, defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .options import RunOptions


def confine(config: dict[str, Any], options: RunOptions, before: tuple[str, ...]) -> None:
    """Set what `options` say of capabilities, and what goes with them.

    Args:
        config: the config.json that is changed.
        options: what was asked for.
        before: the bounding set that a default seccomp profile was made for.

    Raises:
        InvalidReference: an option is not well-formed. Unsupported: this runtime does not have it.
    """
    process, linux = config["process"], config["linux"]
    _set_capabilities(process, options)
    _set_seccomp(linux, options, before, bounding(config))
    if options.privileged:
        _open(config)
    for item in options.security_opt:
        _set_security(process, linux, item)


def bounding(config: dict[str, Any]) -> tuple[str, ...]:
    """The bounding set of a config.json."""
    sets = (config.get("process") or {}).get("capabilities") or {}
    return tuple(sets.get("bounding") or ())


def _capability(name: str) -> str:
    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full not in capabilities.NAMES:
        raise InvalidReference(f"{name!r} is not a capability")
    return full


def _set_capabilities(process: dict[str, Any], options: RunOptions) -> None:
    """Engines' rules: ALL first, then what is added, then what is dropped; none is inheritable (RN-10).

    ALL is all that the caller may give, and a privileged container keeps that whatever is dropped.
    """
    if not (options.cap_add or options.cap_drop or options.privileged):
        return
    sets = process.get("capabilities") or {}
    chosen = set(sets.get("bounding") or [])
    add, drop = (tuple(name.upper() for name in names) for names in (options.cap_add, options.cap_drop))
    if "ALL" in add:
        chosen = set(options.all_capabilities)
    if "ALL" in drop:
        chosen = set()
    chosen |= {_capability(name) for name in add if name != "ALL"}
    chosen -= {_capability(name) for name in drop if name != "ALL"}
    if options.privileged:
        chosen = set(options.all_capabilities)
    listed = [name for name in capabilities.NAMES if name in chosen]
    process["capabilities"] = {kind: list(listed) for kind in ("bounding", "effective", "permitted")}


def _set_seccomp(
    linux: dict[str, Any], options: RunOptions, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """The default profile goes with the capabilities; one that somebody else wrote stays as it is."""
    is_default = linux.get("seccomp") == defaults.seccomp_profile(before)
    if options.privileged and is_default:
        del linux["seccomp"]
    elif not options.privileged and (is_default or "seccomp" not in linux):
        linux["seccomp"] = defaults.seccomp_profile(after)


def _open(config: dict[str, Any]) -> None:
    """What a privileged container has besides its capabilities: all of /proc, /sys, cgroups and devices."""
    from . import devices

    process, linux = config["process"], config["linux"]
    linux["maskedPaths"], linux["readonlyPaths"] = [], []
    process.pop("apparmorProfile", None)
    process.pop("selinuxLabel", None)
    linux.pop("mountLabel", None)
    for mount in config.get("mounts") or []:
        if mount["destination"] == "/sys" or mount["destination"].startswith("/sys/"):
            mount["options"] = [option for option in mount.get("options") or [] if option != "ro"]
    devices.add(config, devices.of_host())
    devices.allow_all(linux)


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

        held = (process.get("capabilities") or {}).get("bounding") or ()
        host = posix.uname()
        linux["seccomp"] = profiles.load(value, held, host.machine, host.release)
