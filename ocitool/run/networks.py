"""A container's way to the network without privilege: a helper program that forwards its traffic.

slirp4netns and pasta stand in the host's network and hold a tap device in the container's. They are started
when the container's namespaces are there, and its hooks and its program have not run yet (see `helpers`).
"""

from __future__ import annotations

import posix
import time

from ocitool.errors import InvalidReference, RunError

from . import helpers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .state import State

KINDS = ("none", "host", "slirp4netns", "pasta")
# Where the helper answers questions about names, and (slirp4netns) what the container's own address is.
NAMESERVERS = {"slirp4netns": "10.0.2.3", "pasta": "169.254.1.1"}
_TUN = "/dev/net/tun"
_SLIRP = ("--configure", "--mtu=65520", "--enable-sandbox", "--enable-seccomp", "--ready-fd=3")
_PASTA = ("--config-net", "--foreground", "--quiet", "--dns-forward", NAMESERVERS["pasta"])
# No port of either side is open on the other one, unless that is asked for.
_PORTS = {"-t": "--tcp-ports", "-u": "--udp-ports", "-T": "--tcp-ns", "-U": "--udp-ns"}
_NOISE = ("syslog",)
_PAUSE = 0.002


def check(choice: str) -> tuple[str, list[str]]:
    """The kind of network that a command line asks for, and the helper's options.

    Raises:
        InvalidReference: there is no such network, or it takes no such option.
    """
    kind, _, words = choice.partition(":")
    given = [word for word in words.split(",") if word]
    if kind not in KINDS:
        raise InvalidReference(f"{choice!r} is no network", hint=f"use one of {', '.join(KINDS)}")
    if kind == "slirp4netns":
        for word in given:
            if word not in ("allow_host_loopback=true", "allow_host_loopback=false"):
                raise InvalidReference(
                    f"network {choice!r}: {word!r} is no option of slirp4netns here",
                    hint="allow_host_loopback=true lets 10.0.2.2 be the host's own 127.0.0.1",
                )
    elif kind == "pasta":
        for word in given:
            if not word.startswith("-"):
                raise InvalidReference(f"network {choice!r}: {word!r} is no option of pasta")
    elif given:
        raise InvalidReference(f"the network {kind} takes no options")
    return kind, given


def attach(state: State, choice: str) -> None:
    """Connect the network namespace of a container's first process, and remember who does it.

    Raises:
        RunError: the helper is not installed, or could not do it.
    """
    kind, given = check(choice)
    program = _installed(kind)
    log = f"{state.directory}/network"
    if kind == "slirp4netns":
        pid = _start_slirp(state.pid, program, given, log)
    else:
        pid = _start_pasta(state.pid, program, given, log)
    helpers.remember(state, "network", pid)


def _installed(kind: str) -> str:
    for directory in ("/usr/bin", "/usr/local/bin", "/bin"):
        if posix.access(f"{directory}/{kind}", posix.X_OK):
            break
    else:
        package = {"pasta": "passt"}.get(kind, kind)
        raise RunError(
            f"the network {kind} needs the program {kind}, which is not installed",
            hint=f"install the package {package}, or use --network none or host",
        )
    if not posix.access(_TUN, posix.R_OK | posix.W_OK):
        lacks = "may not be opened by this user" if posix.access(_TUN, posix.F_OK) else "is not there"
        raise RunError(
            f"the network {kind} needs {_TUN}, which {lacks}",
            hint="load the module tun and make the device usable by everyone (mode 666)",
        )
    return f"{directory}/{kind}"


def _start_slirp(target: int, program: str, given: list[str], log: str) -> int:
    loopback = [] if "allow_host_loopback=true" in given else ["--disable-host-loopback"]
    ready, answer = posix.pipe2(posix.O_CLOEXEC)
    try:
        pid = _spawn([program, *_SLIRP, *loopback, str(target), "tap0"], log, answer)
    finally:
        posix.close(answer)
    try:
        if posix.read(ready, 1) != b"1":
            posix.waitpid(pid, 0)
            raise RunError(f"slirp4netns could not connect the container: {_said(log)}")
    finally:
        posix.close(ready)
    return pid


def _start_pasta(target: int, program: str, given: list[str], log: str) -> int:
    """Start pasta; it writes its number into a file when everything is set up."""
    written = f"{log}.pid"
    wanted = [word for word in given if word != "--map-gw"]
    loopback = [] if "--map-gw" in given else ["--no-map-gw"]
    # Started by root it would become somebody else, who may not enter the container's namespaces.
    user = ["--runas", "0:0"] if posix.geteuid() == 0 else []
    closed = [f"{name}=none" for short, name in _PORTS.items() if not _names(wanted, short, name)]
    words = [program, *_PASTA, *closed, *user, *loopback, *wanted, "--pid", written, str(target)]
    pid = _spawn(words, log, -1)
    while not _written(written):
        if posix.waitpid(pid, posix.WNOHANG)[0]:
            raise RunError(f"pasta could not connect the container: {_said(log)}")
        time.sleep(_PAUSE)
    return pid


def _names(words: list[str], short: str, name: str) -> bool:
    return any(word.startswith(short) or word.partition("=")[0] == name for word in words)


def _written(path: str) -> bool:
    try:
        return posix.stat(path).st_size > 0
    except FileNotFoundError:
        return False


def _spawn(words: list[str], log: str, answer: int) -> int:
    """Start a helper away from the terminal's signals, with its output in a file."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC
    actions: list[Any] = [
        (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
        (posix.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
        (posix.POSIX_SPAWN_DUP2, 1, 2),
    ]
    if answer >= 0:
        actions.append((posix.POSIX_SPAWN_DUP2, answer, 3))
    try:
        return posix.posix_spawn(
            words[0],
            words,
            posix.environ,
            file_actions=actions,
            setpgroup=0,
            setsigmask=[],
            setsigdef=helpers.RESET,
        )
    except OSError as exc:
        raise RunError(f"{words[0]}: {exc.strerror}") from exc


def _said(log: str) -> str:
    return helpers.said(log, _NOISE) or "it did not say why"
