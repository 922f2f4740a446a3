"""Images that are unpacked once and run many times: a container's changes are a layer of their own on top.

::

    prepared-UID/
        layers/             each layer unpacked once (see `ocitool.unpack.overlay`)
        sha256-<image>/     the image's bundle: config.json, and layers.json that names its layers

Where a user has ids of their own to give files to, a bundle has its whole root file system instead.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
    from ocitool.unpack.stacks import Stack

_LAYERS: Final = "layers"
_ACCOUNT_BYTES: Final = 4 * limits.MIB


def place(store: Path) -> Path:
    """Where a local store's prepared images are: each user's own, because owners of files differ."""
    return store.absolute().parent / f"prepared-{os.geteuid()}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is ready to be run.

    Attributes:
        bundle: its directory, with config.json.
        stack: what makes its root file system.
    """

    bundle: Path
    stack: Stack


@contextmanager
def prepared(source: Source, image: Descriptor, directory: Path) -> Iterator[Prepared]:
    """An image unpacked, now if it was not yet, and not removed by anybody while the block lasts.

    Args:
        source: where the image is.
        image: its manifest.
        directory: what has the bundles of all images.

    Raises:
        OciError: as `ocitool.unpack.unpack`.
    """
    bundle = directory / f"{image.digest.algorithm}-{image.digest.hex}"
    while (fd := _held(bundle)) is None:
        _make(source, image, bundle)
    try:
        yield Prepared(bundle, stack_of(bundle))
    finally:
        os.close(fd)


def is_stacked(bundle: Path) -> bool:
    """Whether a bundle's root file system is made of layers."""
    return (bundle / "layers.json").exists()


def stack_of(bundle: Path) -> Stack:
    """What makes the root file system of a bundle: layers, or its own directory.

    Raises:
        NotFound: a layer is gone.
    """
    from ocitool.unpack.stacks import Stack

    rootfs = bundle / "rootfs"
    stack = Stack.load(bundle) or Stack((rootfs,), rootfs, userxattr=os.geteuid() != 0)
    stack.check()
    return stack


def _make(source: Source, image: Descriptor, bundle: Path) -> None:
    from ocitool.unpack import UnpackOptions, staging, unpack
    from ocitool.unpack.idmap import IdMap

    directory = bundle.parent
    alone = os.geteuid() == 0 or IdMap.delegated() is None
    if directory.is_dir():
        staging.collect(directory)
    # Who makes it at the same time makes the same, and the first one to end gives it its name.
    with _locked(directory / _LAYERS, fcntl.LOCK_SH) as cache, suppress(Conflict):
        unpack(source, image, bundle, options=UnpackOptions(layer_cache=cache if alone else None))


@contextmanager
def _locked(cache: Path, how: int) -> Iterator[Path]:
    """Keep others from removing layers, or from adding some."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        yield cache
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
    """Remove bundles of images that are not used any more, and layers that only they had, or only list them.

    What a container runs on stays.

    Returns:
        The digests of the images, and the diff IDs or chain IDs of the layers.
    """
    if not directory.is_dir():
        return []
    from ocitool.unpack import overlay, staging
    from ocitool.unpack.disposal import dispose

    staging.collect(directory, really=really)
    removed, kept = [], []
    for bundle in sorted(directory.iterdir()):
        try:
            digest = Digest.parse(bundle.name.replace("-", ":", 1))
        except InvalidDigest:
            continue
        if is_used(digest) or (fd := _held(bundle)) is None:
            kept.append(bundle)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if really:
                dispose(bundle)
            removed.append(digest)
        except BlockingIOError:
            kept.append(bundle)
        finally:
            os.close(fd)
    with suppress(BlockingIOError), _locked(directory / _LAYERS, fcntl.LOCK_EX | fcntl.LOCK_NB) as cache:
        removed += overlay.remove_unused(cache, kept, really=really)
    return removed


def overlay(stack: Stack, container: Path) -> Overlay:
    """What to mount as a container's root: a stack, with the container's changes in its own directory."""
    from ocitool.run import Overlay

    try:
        info = stack.root.stat()
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
        [str(lower) for lower in stack.lowers],
        upper=str(upper),
        work=str(container / "work"),
        userxattr=stack.userxattr,
    )


def process_of(bundle: Path, config: ImageConfig, user: str) -> dict[str, Any]:
    """The process of a bundle's configuration where it runs as another user of the image.

    Raises:
        InvalidContent: the image has no such user.
    """
    from ocitool.unpack.bundle import runtime_config
    from ocitool.unpack.stacks import opened
    from ocitool.unpack.users import Accounts

    with opened(bundle) as tree:
        passwd, group = (tree.read(path, limit=_ACCOUNT_BYTES) for path in (b"etc/passwd", b"etc/group"))
    process: dict[str, Any] = runtime_config(config, Accounts.parse(passwd or b"", group or b"").find(user))[
        "process"
    ]
    return process
