"""From the values of `run`'s options to what is run, and the short way to what is ready.

Loads nothing that costs time: see `runoptions`.
"""

from __future__ import annotations

import os

from ocitool import containers, places, prepared, remembered, running
from ocitool.cli import runoptions
from ocitool.defaults import hostname
from ocitool.errors import InvalidReference, OciError, RunError
from ocitool.hostfiles import Names
from ocitool.launch import STREAMS, LaunchHere
from ocitool.run.capabilities import NAMES
from ocitool.run.options import RunOptions
from ocitool.run.overlay import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocitool.launch import Launch

_UNCHANGED = (
    "entrypoint", "domainname", "tmpfs", "mounts", "devices", "read_only", "cap_add", "cap_drop",
    "privileged", "memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpu_period",
    "cpu_quota", "cpuset_cpus", "cpuset_mems", "pids_limit", "ulimits", "oom_score_adj", "shm_size",
    "sysctls", "network", "cgroupns", "ipc", "pid", "uts", "security_opt", "init", "labels", "groups",
    "env_host", "unsetenv", "unsetenv_all", "umask", "personality", "device_rules", "memory_swappiness",
    "oom_kill_disable", "cpu_rt_period", "cpu_rt_runtime", "blkio_weight", "cgroup_conf", "cgroup_parent",
    "blkio_weight_device", "device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops",
)  # fmt: skip
OF_IMAGES = {
    "--add-host": "hosts", "--dns": "dns", "--dns-search": "dns_search", "--dns-option": "dns_options",
    "--no-hosts": "no_hosts",
}  # fmt: skip
"""Options about files in /etc, which a bundle has of its maker's, with what their values are called."""
# What needs more than an image that is ready, or is checked where there is time for it.
_LONG_WAY = (
    "attached", "cidfile", "detach", "env_files", "groups", "keep", "label_files", "no_hosts", "pidfile",
    "published", "runtime", "user", "verify_keys",
)  # fmt: skip


def options_of(values: dict[str, Any], env: tuple[str, ...]) -> RunOptions:
    """What to change of an image's configuration."""
    command = values["command"]
    return RunOptions(
        args=command[command[:1] == ("--",) :] or None,
        env=env,
        host_env=dict(os.environ),
        cwd=values["workdir"],
        hostname=_hostname(values),
        volumes=tuple(_absolute_source(volume) for volume in values["volumes"]),
        counts_swap=values["memory"] is not None and _counts_swap(),
        terminal=values["tty"],
        console_size=_terminal_size() if values["tty"] else None,
        all_capabilities=_capabilities() if values["privileged"] or values["cap_add"] else (),
        **{name: values[name] for name in _UNCHANGED},
    )


def launch_of(
    kind: type[Launch], values: dict[str, Any], options: RunOptions, store: str | os.PathLike[str]
) -> Launch:
    """Where and by what it is started."""
    return kind(
        containers.place(store),
        name=values["name"],
        runtime=values["runtime"],
        isolation=values["isolation"],
        hostname=os.uname().nodename if values["uts"] == "host" else options.hostname or "",
        network=values["network"] or "none",
        pid_file=values["pidfile"],
        attached=[stream.lower() for stream in values["attached"]] or STREAMS,
        names=Names(
            values["hosts"],
            values["domainname"] or "",
            values["dns"],
            values["dns_search"],
            values["dns_options"],
            own_hosts=not values["no_hosts"],
        ),
        on_warning=_say,
    )


def shut_input(values: dict[str, Any]) -> None:
    """Have the program find its input empty without `-i`: it may be what the loop of a script reads."""
    if not (values["interactive"] or values["tty"]):
        fd = os.open(os.devnull, os.O_RDONLY)
        os.dup2(fd, 0)
        os.close(fd)


def not_started(code: int) -> int:
    """The exit code of an error of `run`: as engines have it, so that it is no code of the program's.

    126 and 127 are about the program, and all that kept it from being tried is 125.
    """
    return code if code in (126, 127) else RunError.exit_code


def names_bundle(location: str) -> bool:
    """Whether a location is a bundle's path and not an image's."""
    return location.startswith(("/", "./", "../")) and running.is_bundle(location)


def quick(words: list[str]) -> int | None:
    """Run a bundle, or an image that was run before, in this very process, which ends with it.

    Args:
        words: the command line after `run`.

    Returns:
        The program's exit status; None where nothing has been done, because it takes more than that.

    Raises:
        OciError: as `running.run_image`.
    """
    values = runoptions.parse(words)
    if values is None or _takes_long(values):
        return None
    options, store = options_of(values, values["env"]), places.local_store()
    launch = launch_of(LaunchHere, values, options, store)
    if names_bundle(values["location"]):
        # What is not for bundles is refused by the long way.
        if any(values[name] for name in OF_IMAGES.values()):
            return None
        shut_input(values)
        return running.run_directory(values["location"], options, launch)
    images = prepared.place(store)
    question = remembered.Question(values["location"], store, values["platform"] or "")
    image = question.remembered(images)
    ready = prepared.ready(image.digest, images) if image else None
    if image is None or ready is None:
        return None
    shut_input(values)
    with ready:
        container = launch.directory()
        containers.collect(launch.place)
        try:
            return running.run_ready(ready, image, options, launch, container)
        except OciError as error:
            if refused(error):
                return None  # nothing has been started, and the long way knows another one
            raise


def _takes_long(values: dict[str, Any]) -> bool:
    # Variables of ours are options, and sockets that were opened for the program have to be counted.
    given = any(name.startswith("OCITOOL_") and name != "OCITOOL_STORE" for name in os.environ)
    return (
        given
        or "LISTEN_FDS" in os.environ
        or any(values[name] for name in _LONG_WAY)
        or values["pull"] == "always"
        or values["isolation"] == "chroot"
        or values["userns"] != "auto"
    )


def _hostname(values: dict[str, Any]) -> str | None:
    """The host name that was asked for; with the host's network it is the host's, as engines have it."""
    given: str | None = values["hostname"]
    shares = values["network"] == "host" and values["uts"] != "host" and not names_bundle(values["location"])
    if given is not None or not shares:
        return given
    try:
        return hostname(os.uname().nodename)
    except InvalidReference:
        return None


def _capabilities() -> tuple[str, ...]:
    """What this process may hand on; in a user namespace of its own, a container may have all there are."""
    if os.geteuid() != 0:
        return tuple(NAMES)
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        bits = int(file.read().partition("CapBnd:")[2].split()[0], 16)
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


def _say(text: str) -> None:
    from ocitool import console

    console.say(text)


def _absolute_source(volume: str) -> str:
    """A volume whose source is relative to where we are, as shells' users write it."""
    source, colon, rest = volume.partition(":")
    return f"{os.path.abspath(source)}:{rest}" if colon and source.startswith(".") else volume


def _counts_swap() -> bool:
    """Whether this host can limit how much a container swaps."""
    if os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"):
        return True
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = file.read().partition("0::")[2].partition("\n")[0]
    return os.path.exists(f"/sys/fs/cgroup{own}/memory.swap.max")


def _terminal_size() -> tuple[int, int]:
    import shutil

    columns, lines = shutil.get_terminal_size()
    return lines, columns
