"""The options of `run`, and a reader of them that loads nothing.

`ocitool run` with an image that is ready should take no longer than its container. The library that reads all
other command lines takes as long to load, so what is plain is read here. Whatever is not (an error, a request
for help, an option of registries) is left to the library, which has its options from the same table.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Option:
    """An option of the command line.

    Attributes:
        names: its spellings.
        attribute: what its value is called.
        kind: "text"; "texts", which may be given several times; "number"; "choice"; or "flag", without value.
        choices: the values of a choice.
        default: the value where it is not given.
        metavar, help: what is shown of it.
        hidden: whether nothing is.
    """

    def __init__(
        self,
        *names: str,
        attribute: str = "",
        kind: str = "text",
        choices: tuple[str, ...] = (),
        default: Any = None,
        metavar: str | None = None,
        help: str = "",  # noqa: A002 - as the library calls it
        hidden: bool = False,
    ) -> None:
        self.names = names
        self.attribute = attribute or names[-1].lstrip("-").replace("-", "_")
        self.kind = "choice" if choices else kind
        self.choices = choices
        self.default = {"texts": (), "flag": False}.get(kind, default)
        self.metavar = metavar
        self.help = help
        self.hidden = hidden


PLATFORM = Option("--platform", metavar="OS/ARCH[/VARIANT]", help="The platform to take. [the host's]")
QUIET = Option("-q", "--quiet", kind="flag")
"""An option of every command, and the short way says nothing anyway."""
PULL = Option(
    "--pull",
    choices=("missing", "always", "never"),
    default="missing",
    help="When to pull an image that is named by its reference.",
)
OPTIONS = (
    PLATFORM,
    PULL,
    Option(
        "--verify-key",
        attribute="verify_keys",
        kind="texts",
        metavar="FILE",
        help="Run the image only if this public key (PEM) has signed it; with several, all of them.",
    ),
    Option(
        "-e", "--env", kind="texts", metavar="NAME[=VALUE]", help="Set a variable; the caller's without =."
    ),
    Option(
        "--env-file",
        attribute="env_files",
        kind="texts",
        metavar="FILE",
        help="Set the variables of a file, one on each line.",
    ),
    Option("--env-host", kind="flag", help="Set all of the caller's variables that the image does not set."),
    Option("--unsetenv", kind="texts", metavar="NAME", help="Leave out a variable of the image."),
    Option("--unsetenv-all", kind="flag", help="Leave out all variables of the image."),
    Option("-w", "--workdir", metavar="DIR", help="Working directory in the container."),
    Option(
        "-u",
        "--user",
        default="",
        metavar="USER[:GROUP]",
        help="Run as this user of the image, or number.",
    ),
    Option(
        "--group-add",
        attribute="groups",
        kind="texts",
        metavar="GROUP",
        help="Be in this group of the image, or number, as well.",
    ),
    Option("--umask", metavar="MASK", help="The program's umask, in octal digits. [0022]"),
    Option("--personality", choices=("LINUX", "LINUX32"), help="The kind of machine that it sees."),
    Option("--entrypoint", metavar="PROGRAM", help="Run this instead of the image's entrypoint."),
    Option("--name", default="", metavar="ID", help="The container's ID. [random]"),
    Option("--cidfile", default="", metavar="FILE", help="Write the ID to a file that is not there yet."),
    Option("--pidfile", default="", metavar="FILE", help="Write the number of the first process to a file."),
    Option(
        "-l",
        "--label",
        "--annotation",
        attribute="labels",
        kind="texts",
        metavar="NAME[=VALUE]",
        help="Set an annotation, which runtimes and hooks see.",
    ),
    Option(
        "--label-file",
        attribute="label_files",
        kind="texts",
        metavar="FILE",
        help="Set the annotations of a file, one on each line.",
    ),
    Option("-h", "--hostname", metavar="NAME", help="The container's host name."),
    Option("--domainname", metavar="NAME", help="The container's NIS domain name."),
    Option(
        "--add-host",
        attribute="hosts",
        kind="texts",
        metavar="NAME:ADDRESS",
        help="Add a line to /etc/hosts.",
    ),
    Option("--no-hosts", kind="flag", help="Leave the image's own /etc/hosts as it is."),
    Option("--dns", kind="texts", metavar="ADDRESS", help="Ask this name server instead of the host's."),
    Option("--dns-search", kind="texts", metavar="DOMAIN", help="Look for names in this domain; . for none."),
    Option(
        "--dns-opt",
        "--dns-option",
        attribute="dns_options",
        kind="texts",
        metavar="OPTION",
        help="An option of /etc/resolv.conf.",
    ),
    Option(
        "-v",
        "--volume",
        attribute="volumes",
        kind="texts",
        metavar="[SOURCE:]DEST[:MODE]",
        help="Mount a directory.",
    ),
    Option(
        "--mount",
        attribute="mounts",
        kind="texts",
        metavar="NAME=VALUE,…",
        help="As docker's: type=bind, tmpfs or volume, source, target, readonly.",
    ),
    Option("--tmpfs", kind="texts", metavar="DEST[:OPTIONS]", help="Mount an empty directory in memory."),
    Option("--shm-size", metavar="SIZE", help="The size of /dev/shm. [64m]"),
    Option(
        "--device",
        attribute="devices",
        kind="texts",
        metavar="HOST[:DEST][:rwm]",
        help="Give a device of the host's.",
    ),
    Option(
        "--device-cgroup-rule",
        attribute="device_rules",
        kind="texts",
        metavar="RULE",
        help="Allow devices that are not there yet, as 'c 81:* rmw'.",
    ),
    Option("--read-only", kind="flag", help="Make the root file system read-only."),
    Option("--cap-add", kind="texts", metavar="CAP", help="Give a capability."),
    Option("--cap-drop", kind="texts", metavar="CAP", help="Take a capability away."),
    Option(
        "--privileged", kind="flag", help="Give all capabilities, devices and system calls that you may give."
    ),
    Option("-m", "--memory", metavar="SIZE", help="Limit memory, as 512m."),
    Option("--memory-swap", metavar="SIZE", help="Limit memory and swap together; -1 for no limit of swap."),
    Option("--memory-reservation", metavar="SIZE", help="What is left where the host runs out of memory."),
    Option(
        "--memory-swappiness", kind="number", metavar="NUMBER", help="How readily it swaps, from 0 to 100."
    ),
    Option("--oom-kill-disable", kind="flag", help="Have it wait where memory runs out."),
    Option("--cpus", metavar="NUMBER", help="Limit processor time, as 1.5."),
    Option("-c", "--cpu-shares", kind="number", metavar="NUMBER", help="A share of processor time. [1024]"),
    Option("--cpu-period", kind="number", metavar="NUMBER", help="Microseconds that a quota is for."),
    Option("--cpu-quota", kind="number", metavar="NUMBER", help="Microseconds of each period."),
    Option("--cpu-rt-period", kind="number", metavar="NUMBER", help="The same for real-time programs."),
    Option("--cpu-rt-runtime", kind="number", metavar="NUMBER", help="The same for real-time programs."),
    Option("--cpuset-cpus", metavar="LIST", help="Run on these processors, as 0-2,7."),
    Option("--cpuset-mems", metavar="LIST", help="Use memory of these nodes."),
    Option("--pids-limit", kind="number", metavar="NUMBER", help="Limit processes."),
    Option(
        "--blkio-weight", kind="number", metavar="NUMBER", help="A share of disks' time, from 10 to 1000."
    ),
    Option(
        "--blkio-weight-device",
        kind="texts",
        metavar="DEVICE:NUMBER",
        help="A share of one disk's time.",
    ),
    *(
        Option(
            f"--device-{way}-{unit}",
            kind="texts",
            metavar="DEVICE:RATE",
            help=f"Limit what it {does} a disk, in {what} a second.",
        )
        for way, does in (("read", "reads from"), ("write", "writes to"))
        for unit, what in (("bps", "bytes"), ("iops", "operations"))
    ),
    Option("--cgroup-parent", metavar="PATH", help="Where the container's control group is made."),
    Option(
        "--cgroup-conf",
        kind="texts",
        metavar="FILE=VALUE",
        help="Write to a file of its control group, of version 2.",
    ),
    Option(
        "--ulimit",
        attribute="ulimits",
        kind="texts",
        metavar="NAME=SOFT[:HARD]",
        help="Limit what a process may use, as nofile=1024.",
    ),
    Option("--oom-score-adj", kind="number", metavar="NUMBER", help="Be ended sooner where memory runs out."),
    Option(
        "--sysctl",
        attribute="sysctls",
        kind="texts",
        metavar="NAME=VALUE",
        help="Set a kernel parameter of the container's namespaces.",
    ),
    Option(
        "--network",
        "--net",
        attribute="network",
        metavar="KIND",
        help="The network: none, host, slirp4netns[:OPTION] or pasta[:OPTION]. [none]",
    ),
    Option("--cgroupns", choices=("private", "host"), help="The control groups that it sees. [private]"),
    Option(
        "--ipc",
        choices=("private", "host", "shareable", "none"),
        help="Shared memory and message queues; none is without /dev/shm. [private]",
    ),
    Option("--pid", choices=("private", "host"), help="The processes that it sees. [private]"),
    Option("--uts", choices=("private", "host"), help="The host name. [private]"),
    Option(
        "--userns",
        choices=("auto", "host"),
        default="auto",
        help="A user namespace of its own: where root needs none and others do, or never.",
    ),
    Option(
        "--isolation",
        choices=("auto", "full", "chroot"),
        default="auto",
        help="chroot: a root directory of its own and nothing else.",
    ),
    Option(
        "--security-opt",
        kind="texts",
        metavar="OPTION",
        help="As docker's, such as seccomp=unconfined.",
    ),
    Option(
        "--runtime",
        default="",
        metavar="NAME|PATH",
        help="Hand the bundle to this runtime, as crun. [our own]",
    ),
    Option("-t", "--tty", kind="flag", help="Give the program a terminal."),
    Option("--init", kind="flag", help="Have a small program collect orphans and pass signals on."),
    Option("-d", "--detach", kind="flag", hidden=True),
    Option("-p", "--publish", attribute="published", kind="texts", hidden=True),
    Option(
        "-a",
        "--attach",
        attribute="attached",
        kind="texts",
        metavar="STREAM",
        help="Pass on stdout or stderr alone; stdin is -i's.",
    ),
    Option("-i", "--interactive", kind="flag", help="Pass stdin on; with -t, it always is."),
    Option(
        "--rm",
        attribute="remove",
        kind="flag",
        help="Remove the container afterwards, as is the default.",
    ),
    Option("--keep", kind="flag", help="Leave the container's directory when the program has ended."),
)


FLAG_VALUES = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}
"""What may follow a flag and `=`, as docker reads it."""


def parse(words: list[str]) -> dict[str, Any] | None:
    """The values of a command line, by their attributes, with `location` and `command`.

    None where the library has to look at it.
    """
    known = {name: option for option in (*OPTIONS, QUIET) for name in option.names}
    values: dict[str, Any] = {option.attribute: option.default for option in OPTIONS}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        for name, attached in _spelled(rest.pop(0), known):
            option = known.get(name)
            if option is None or (option.kind == "flag" and attached not in (None, *FLAG_VALUES)):
                return None
            needs_value = attached is None and option.kind != "flag"
            if needs_value and not rest:
                return None
            if not _take(values, option, rest.pop(0) if needs_value else attached):
                return None
    if not rest:
        return None
    return {**values, "location": rest[0], "command": tuple(rest[1:])}


def without_flag_values(words: list[str], known: dict[str, Option]) -> list[str]:
    """A command line for a library to which a flag has no value, as `--rm=true` has for docker.

    Args:
        words: the command line; one that the library has something to say about stays as it is.
        known: all options by all of their names.
    """
    rest = list(words)
    taken: list[tuple[Option, list[str]]] = []
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        for name, attached in _spelled(rest.pop(0), known):
            option = known.get(name)
            if option is None or (option.kind != "flag" and attached is None and not rest):
                return words
            if option.kind != "flag":
                taken.append((option, [name, rest.pop(0) if attached is None else attached]))
            elif attached is None or FLAG_VALUES.get(attached):
                taken.append((option, [name]))
            elif attached in FLAG_VALUES:
                taken = [each for each in taken if each[0] is not option]
            else:
                return words
    return [*(word for _, spelled in taken for word in spelled), *rest]


def _spelled(word: str, known: dict[str, Option]) -> list[tuple[str, str | None]]:
    """The options that one word has, each with the value that is attached to it."""
    if word.startswith("--"):
        name, attached, value = word.partition("=")
        return [(name, value if attached else None)]
    found: list[tuple[str, str | None]] = []
    for after, letter in enumerate(word[1:], 2):
        option = known.get(f"-{letter}")
        if option is not None and option.kind != "flag":
            return [*found, (f"-{letter}", word[after:] or None)]
        if option is not None and word[after : after + 1] == "=":
            return [*found, (f"-{letter}", word[after + 1 :])]
        found.append((f"-{letter}", None))
    return found or [(word, None)]


def _take(values: dict[str, Any], option: Option, value: Any) -> bool:
    """Note an option; False where the library would have something to say about its value."""
    if option.kind == "texts":
        value = (*values[option.attribute], value)
    elif option is QUIET:
        return True
    elif option.kind == "flag":
        value = value is None or FLAG_VALUES[value]
    elif option.kind == "number":
        if not (value.isascii() and value.isdigit()):
            return False
        value = int(value)
    elif option.kind == "choice" and value not in option.choices:
        return False
    values[option.attribute] = value
    return True
