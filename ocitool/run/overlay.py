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

_O_PATH = 0o10000000
_HINT = "unpack the image into a bundle instead"


def refused(error: Exception) -> bool:
    """Whether an error says that the kernel does not mount the layers; nothing has been started then."""
    return getattr(error, "hint", "") == _HINT


class Overlay:
    """What to mount as the root file system.

    Attributes:
        target: the directory to mount on, usually the bundle's empty `rootfs`.
        lower: the layers' directories, the topmost first.
        upper: where changes are kept; "" for memory, so that they end with the container.
        work: an empty directory on the file system of `upper`.
        userxattr: whether marks are kept in `user.` attributes, as an ordinary user must.
        readonly: mount the layers alone, with nothing to change.
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
    ) -> None:
        self.target = target
        self.lower = lower
        self.upper = upper
        self.work = work
        self.userxattr = userxattr
        self.readonly = readonly

    def document(self) -> dict[str, Any]:
        """The same as plain data, for the command line of a clean interpreter."""
        return dict(vars(self))

    @classmethod
    def load(cls, document: dict[str, Any]) -> Overlay:
        """From what `document` returned."""
        values = dict(document)
        return cls(values.pop("target"), values.pop("lower"), **values)

    def mount(self, kernel: Kernel) -> None:
        """Mount it.

        Raises:
            RunError: the kernel has no overlay, or does not take these directories.
        """
        try:
            if len(self.lower) == 1 and self.readonly:
                tree = kernel.open_tree(AT_FDCWD, self.lower[0], recursive=False)
            else:
                upper, work = self._writable(kernel)
                tree = self._overlay(kernel, upper, work)
            self._attach(kernel, tree)
        except OSError as exc:
            said = "; ".join(getattr(exc, "__notes__", []))
            raise RunError(
                f"overlay on {self.target}: {exc.strerror}" + (f" ({said})" if said else ""), hint=_HINT
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

    def _overlay(self, kernel: Kernel, upper: str, work: str) -> int:
        common = ["userxattr"] if self.userxattr else []
        if upper:
            common += [f"upperdir={upper}", f"workdir={work}", "volatile"]
        try:
            return kernel.new_mount(
                "overlay", "overlay", [*[f"lowerdir+={path}" for path in self.lower], *common], 0
            )
        except OSError as exc:
            if exc.errno != 22:
                raise
        # Before Linux 6.5 the layers are one option, with its own separators.
        escaped = [path.replace("\\", "\\\\").replace(":", "\\:") for path in self.lower]
        return kernel.new_mount("overlay", "overlay", [f"lowerdir={':'.join(escaped)}", *common], 0)
