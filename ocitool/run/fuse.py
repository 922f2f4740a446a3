"""Layers put together by fuse-overlayfs, for file systems on which the kernel mounts no overlay.

The program serves the container from outside: it is in none of the container's namespaces but the user
namespace, whose ids it gives to files, and has nothing of ours but the layers and its end of the mount. That
is made in the container's mount namespace, and nowhere else. So it goes with the container, whoever is
killed, and a program whose mount is gone ends by itself.
"""

from __future__ import annotations

import posix

from ocitool.errors import RunError

from . import helpers
from ._init import leave_the_host, posix_exit
from .kernel import CLOEXEC, CLONE_PARENT, CLOSE_RANGE_CLOEXEC, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG
from .namespaces import MOUNT, USER
from .overlay import UNPACK, Overlay
from .rootfs import detach_from_host
from .starting import stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .kernel import Kernel
    from .state import State

_DEVICE = "/dev/fuse"
_O_PATH = 0o10000000
_SIGKILL = 9
_FIRST = 3
# It says so of an option that it gives itself.
_NOISE = ("unknown argument ignored",)


def installed() -> str:
    """The path of fuse-overlayfs where this host has it, and lets this user use it; "" elsewhere."""
    if not posix.access(_DEVICE, posix.R_OK | posix.W_OK):
        return ""
    searched = posix.environ.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").decode(errors="surrogateescape")
    for directory in searched.split(":"):
        path = f"{directory}/fuse-overlayfs"
        # A relative one could be anybody's.
        if path.startswith("/") and posix.access(path, posix.X_OK):
            return path
    return ""


def serve(kernel: Kernel, state: State, layers: Overlay, *, userns: bool) -> None:
    """Mount layers in the mount namespace of a container's first process, which waits meanwhile.

    Args:
        kernel: the kernel.
        state: the container; what serves it is remembered there.
        layers: what to mount.
        userns: whether the container has a user namespace of its own.

    Raises:
        RunError: the program, or the kernel, does not take these directories.
    """
    path = f"{state.directory}/layers"
    log = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | CLOEXEC, 0o600)
    reading, answer = posix.pipe2(CLOEXEC)
    runtime = posix.getpid()
    mounter = kernel.clone(0)
    if mounter == 0:
        _mount(kernel, (runtime, state.pid), layers, (log, answer), userns=userns)
    posix.close(answer)
    posix.close(log)
    said = b""
    while piece := posix.read(reading, 4096):
        said += piece
    posix.close(reading)
    posix.waitpid(mounter, 0)
    number, _, outcome = said.decode(errors="surrogateescape").rpartition("\n")
    if outcome == "ok":
        helpers.remember(state, "layers", int(number))
        return
    if number:
        stop(int(number))
    told = helpers.said(path, _NOISE) or outcome or "it did not say why"
    raise RunError(f"fuse-overlayfs on {layers.target}: {told}", hint=UNPACK)


def _mount(
    kernel: Kernel, processes: tuple[int, int], layers: Overlay, told: tuple[int, int], *, userns: bool
) -> NoReturn:
    """Have the program started, make the mount in the container's namespace, and tell how that went."""
    (runtime, target), (log, answer) = processes, told
    outcome = ""
    try:
        leave_the_host()
        _end_with(kernel, runtime)
        words, opened = _command_line(layers)
        namespace = posix.open(f"/proc/{target}/ns/mnt", posix.O_RDONLY | CLOEXEC)
        if userns:
            _become_root_of(kernel, target)
            _end_with(kernel, runtime)  # a change of user clears that
        # In the user namespace that the mount will be in: the kernel takes no other opener's.
        device = posix.open(_DEVICE, posix.O_RDWR | CLOEXEC)
        mounted, go = posix.pipe2(CLOEXEC)
        # The child of whoever started us, for we end first.
        pid = kernel.clone(CLONE_PARENT)
        if pid == 0:
            posix.close(go)
            _become_program(kernel, [*words, f"/dev/fd/{device}"], [device, *opened], log, mounted)
        posix.write(answer, b"%d\n" % pid)
        kernel.setns(namespace, MOUNT)
        detach_from_host(kernel, "")
        _attach(kernel, layers.target, device)
        # While we have it open, we would wait for a program that has ended.
        posix.close(device)
        posix.write(go, b"m")
        posix.stat(layers.target)  # waits until the program answers
        outcome = "ok"
    except OSError as exc:
        outcome = str(exc.strerror) if exc.filename == layers.target else f"{exc.filename}: {exc.strerror}"
    except RunError as exc:
        outcome = exc.message
    finally:
        posix.write(answer, outcome.encode(errors="surrogateescape"))
        posix_exit(0)


def _end_with(kernel: Kernel, runtime: int) -> None:
    """Die with the runtime: while it lives, the container's number is the container's."""
    kernel.prctl(PR_SET_PDEATHSIG, _SIGKILL)
    if posix.getppid() != runtime:
        posix_exit(1)


def _command_line(layers: Overlay) -> tuple[list[str], list[int]]:
    """The program's words, but for the last one, and the descriptors that it is to have.

    It takes a path apart at colons and commas. What it gets are names of descriptors, which have none; but
    the directory of changes it takes apart once more, after it has resolved that.
    """
    opened: list[int] = []

    def named(path: str) -> str:
        opened.append(posix.open(path, _O_PATH | posix.O_DIRECTORY | CLOEXEC))
        return f"/proc/self/fd/{opened[-1]}"

    options = [f"lowerdir={':'.join([named(path) for path in layers.lower])}"]
    if not layers.readonly:
        if not layers.upper:
            raise RunError("it keeps no changes in memory")
        upper = named(layers.upper)
        if ":" in posix.readlink(upper):
            raise RunError(f"it keeps no changes in {layers.upper}, for the colon in that")
        options += [f"upperdir={upper}", f"workdir={named(layers.work)}", "volatile"]
    return [layers.program, "-f", "-o", ",".join(options)], opened


def _become_root_of(kernel: Kernel, target: int) -> None:
    """Enter a user namespace, whose root has the rights to what is in it."""
    fd = posix.open(f"/proc/{target}/ns/user", posix.O_RDONLY | CLOEXEC)
    kernel.setns(fd, USER)
    kernel.set_ids(0, 0, None)
    try:
        posix.setgroups([])
    except PermissionError:
        return  # where one's own id is all that is mapped, nobody may leave a group


def _attach(kernel: Kernel, target: str, device: int) -> None:
    options = [f"fd={device}", "rootmode=40000", "user_id=0", "group_id=0"]
    # The kernel decides by owner and mode, and for everybody in the container.
    options += ["default_permissions", "allow_other"]
    tree = kernel.new_mount("fuse", "fuse-overlayfs", options, 0)
    fd = posix.open(target, _O_PATH | posix.O_DIRECTORY | CLOEXEC)
    kernel.move_mount(tree, fd)
    posix.close(fd)
    posix.close(tree)


def _become_program(kernel: Kernel, words: list[str], kept: list[int], log: int, mounted: int) -> NoReturn:
    """Become the program once there is a mount to serve; away from the terminal, and with `kept` alone."""
    try:
        if posix.read(mounted, 1) == b"m":
            posix.setsid()
            posix.chdir("/")
            kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
            null = posix.open("/dev/null", posix.O_RDONLY | CLOEXEC)
            for fd, source in enumerate((null, log, log)):
                posix.dup2(source, fd)
            kernel.close_range(_FIRST, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
            for fd in kept:
                posix.set_inheritable(fd, True)
            posix.execve(words[0], words, posix.environ)
    finally:
        posix_exit(127)
