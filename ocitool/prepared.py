"""Images that are unpacked once and run many times: a container's changes are a layer of their own on top."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from ocitool import limits
from ocitool.digest import Digest
from ocitool.errors import Conflict, InvalidDigest, OciError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.model import Descriptor, ImageConfig
    from ocitool.run import Overlay

_ACCOUNT_BYTES: Final = 4 * limits.MIB


def place(store: Path) -> Path:
    """Where a local store's prepared images are: each user's own, because owners of files differ."""
    return store.absolute().parent / f"prepared-{os.geteuid()}"


@contextmanager
def prepared(source: Source, image: Descriptor, directory: Path) -> Iterator[Path]:
    """The bundle of an image, made if it is not there, and not removed by anybody while the block lasts.

    Args:
        source: where the image is.
        image: its manifest.
        directory: what has the bundles of all images.

    Raises:
        OciError: as `ocitool.unpack.unpack`.
    """
    from ocitool.unpack import staging, unpack

    bundle = directory / f"{image.digest.algorithm}-{image.digest.hex}"
    while (fd := _held(bundle)) is None:
        if directory.is_dir():
            staging.collect(directory)
        # Who makes it at the same time makes the same, and the first one to end gives it its name.
        with suppress(Conflict):
            unpack(source, image, bundle)
    try:
        yield bundle
    finally:
        os.close(fd)


def _held(bundle: Path) -> int | None:
    """A descriptor whose lock keeps a bundle where it is; None where there is none."""
    try:
        fd = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    fcntl.flock(fd, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(fd), bundle.stat()):
            return fd
    os.close(fd)
    return None


def remove_unused(directory: Path, is_used: Callable[[Digest], bool], *, really: bool) -> list[Digest]:
    """Remove the bundles of images that are not used any more, or only list them.

    What a container runs on stays. What an unpacking that was killed has left goes, too.
    """
    from ocitool.unpack import staging
    from ocitool.unpack.removal import discard

    if not directory.is_dir():
        return []
    staging.collect(directory, really=really)
    removed = []
    for bundle in sorted(directory.iterdir()):
        try:
            digest = Digest.parse(bundle.name.replace("-", ":", 1))
        except InvalidDigest:
            continue
        if is_used(digest) or (fd := _held(bundle)) is None:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if really:
                discard(bundle)
            removed.append(digest)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    return removed


def overlay(bundle: Path, container: Path) -> Overlay:
    """What to mount as a container's root: a bundle's, with the container's changes in its own directory."""
    from ocitool.run import Overlay

    lower = bundle / "rootfs"
    info = lower.stat()
    try:
        for name in ("rootfs", "upper", "work"):
            (container / name).mkdir(mode=0o700)
        # The root directory of the container is the upper one.
        upper = container / "upper"
        os.chown(upper, info.st_uid, info.st_gid)
        upper.chmod(info.st_mode & 0o7777)
        os.utime(upper, ns=(info.st_mtime_ns, info.st_mtime_ns))
    except OSError as error:
        raise OciError(f"{container} can't be made ready: {error.strerror}") from error
    return Overlay(
        str(container / "rootfs"),
        [str(lower)],
        upper=str(upper),
        work=str(container / "work"),
        userxattr=os.geteuid() != 0,
    )


def process_of(bundle: Path, config: ImageConfig, user: str) -> dict[str, Any]:
    """The process of a bundle's configuration where it runs as another user of the image.

    Raises:
        InvalidContent: the image has no such user.
    """
    from ocitool.unpack.bundle import runtime_config
    from ocitool.unpack.root import OPEN_DIRECTORY, Root
    from ocitool.unpack.users import Accounts

    root = Root(os.open(bundle / "rootfs", OPEN_DIRECTORY))
    try:
        passwd, group = (root.read(path, limit=_ACCOUNT_BYTES) for path in (b"etc/passwd", b"etc/group"))
    finally:
        root.close()
    process: dict[str, Any] = runtime_config(config, Accounts.parse(passwd or b"", group or b"").find(user))[
        "process"
    ]
    return process
