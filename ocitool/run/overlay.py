"""A root file system put together from layers, in the container's own mount namespace.

Nothing is copied, and nothing has to be unmounted: the mount ends with the container.
"""

from __future__ import annotations

import posix

from ocitool.errors import RunError

from .kernel import AT_FDCWD, CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel
    from .starting import Settings

_O_PATH = 0o10000000
_EINVAL = 22
UNPACK = "unpack the image into a bundle instead"
"""The hint of an error that says that layers are not mounted."""


def refused(error: Exception) -> bool:
    """Whether an error says that layers are not mounted; nothing has been started then."""
    return getattr(error, "hint", "") == UNPACK


class Overlay:
    """What to mount as the root file system.

    Attributes:
        target: the directory to mount on, usually the bundle's empty `rootfs`.
        lower: the layers' directories, the topmost first.
        upper: where changes are kept; "" for memory, so that they end with the container.
        work: an empty directory on the file system of `upper`.
        userxattr: whether marks are kept in `user.` attributes, as an ordinary user must.
        readonly: mount the layers alone, with nothing to change.
        program: what serves them in the kernel's place, by its path (see `fuse`), or "".
    """

    def __init__(
        self,
        target: str,
        lower: list[str],
        *,
        upper: str = "",
        work: str = "",
        userxattr: bool = False,
        readonly: bool = False,
        program: str = "",
    ) -> None:
        self.target = target
        self.lower = lower
        self.upper = upper
        self.work = work
        self.userxattr = userxattr
        self.readonly = readonly
        self.program = program

    def document(self) -> dict[str, Any]:
        """The same as plain data, for the command line of a clean interpreter."""
        return dict(vars(self))

    @classmethod
    def load(cls, document: dict[str, Any]) -> Overlay:
        """From what `document` returned."""
        values = dict(document)
        return cls(values.pop("target"), values.pop("lower"), **values)

    def engage(self, settings: Settings) -> None:
        """Have it mounted for a container that is to be made."""
        if self.program:
            settings.served = self
        else:
            settings.prepare_root = self.mount

    def mount(self, kernel: Kernel) -> None:
        """Mount it by the kernel itself.

        Raises:
            RunError: the kernel has no overlay, or does not take these directories.
        """
        try:
            if len(self.lower) == 1 and self.readonly:
                self._attach(kernel, kernel.open_tree(AT_FDCWD, self.lower[0], recursive=False))
            else:
                self._overlay(kernel, *self._writable(kernel))
        except OSError as exc:
            said = "; ".join(getattr(exc, "__notes__", []))
            raise RunError(
                f"overlay on {self.target}: {exc.strerror}" + (f" ({said})" if said else ""), hint=UNPACK
            ) from exc

    def _attach(self, kernel: Kernel, tree: int) -> None:
        fd = posix.open(self.target, _O_PATH | posix.O_DIRECTORY | CLOEXEC)
        kernel.move_mount(tree, fd)
        posix.close(fd)
        posix.close(tree)

    def _writable(self, kernel: Kernel) -> tuple[str, str]:
        if self.readonly or self.upper:
            return self.upper, self.work
        self._attach(kernel, kernel.new_mount("tmpfs", "tmpfs", ["mode=755"], 0))
        upper, work = f"{self.target}/upper", f"{self.target}/work"
        info = posix.stat(self.lower[0])
        # The root directory of the container is the upper one's: it has the mode that the image gave it.
        posix.mkdir(upper, info.st_mode & 0o7777)
        posix.mkdir(work, 0o700)
        return upper, work

    def _overlay(self, kernel: Kernel, upper: str, work: str) -> None:
        flags = ["userxattr"] if self.userxattr else []
        places = {"upperdir": upper, "workdir": work} if upper else {}
        if upper:
            flags.append("volatile")
        options = [f"{key}={path}" for key, path in places.items()]
        try:
            tree = kernel.new_mount(
                "overlay", "overlay", [*[f"lowerdir+={path}" for path in self.lower], *options, *flags], 0
            )
        except OSError as exc:
            if exc.errno != _EINVAL:
                raise
            self._by_descriptors(kernel, places, flags)
        else:
            self._attach(kernel, tree)

    def _by_descriptors(self, kernel: Kernel, places: dict[str, str], flags: list[str]) -> None:
        """Mount as before Linux 6.5, where all layers are one option.

        One option of the new interface has at most 255 characters, and all of mount(2)'s a page, so that
        paths would soon be too long; descriptors have short names, and nothing in them to be escaped.
        """
        opened = {path: posix.open(path, _O_PATH | posix.O_DIRECTORY | CLOEXEC)
                  for path in [self.target, *self.lower, *places.values()]}  # fmt: skip
        short = {path: f"/proc/self/fd/{fd}" for path, fd in opened.items()}
        options = [f"lowerdir={':'.join([short[path] for path in self.lower])}"]
        options += [f"{key}={short[path]}" for key, path in places.items()]
        try:
            kernel.call(
                "mount", b"overlay", short[self.target].encode(), b"overlay", 0,
                ",".join([*options, *flags]).encode(),
            )  # fmt: skip
        finally:
            for fd in opened.values():
                posix.close(fd)
