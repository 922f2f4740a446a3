"""Images that are unpacked once and run many times: a container's changes are a layer of their own on top.

::

    STORE.prepared-UID/
        layers/             each layer unpacked once (see `ocitool.unpack.overlay`)
        sha256-<image>/     the image's bundle: config.json, and layers.json that names its layers

Where a user has ids of their own to give files to, a bundle has its whole root file system instead.
"""

from __future__ import annotations

import fcntl
import os

from ocitool import places
from ocitool.errors import Conflict, InvalidContent, InvalidDigest, OciError
from ocitool.run import jsonfast
from ocitool.run.state import read_file
from ocitool.unpack.stacks import FILE, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from pathlib import Path
    from typing import Any, Self

    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.model import Descriptor, ImageConfig
    from ocitool.run import Overlay
    from ocitool.unpack.users import Accounts

_LAYERS = "layers"
_ACCOUNT_BYTES = 4 << 20
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def place(store: str | PathLike[str]) -> str:
    """Where a local store's prepared images are: each user's own, because owners of files differ.

    And each store's own: what belongs to no image of this one may well belong to one of its neighbour.
    """
    return f"{os.path.abspath(store)}.prepared-{os.geteuid()}"


class Prepared:
    """An image that is ready to be run, and that nobody removes before it is closed.

    Attributes:
        bundle: its directory, with config.json.
        stack: what makes its root file system.
    """

    def __init__(self, bundle: str, held: int) -> None:
        self.bundle = bundle
        self._held = held
        try:
            self.stack = stack_of(bundle)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others remove it."""
        os.close(self._held)


def prepared(source: Source, image: Descriptor, directory: str | PathLike[str]) -> Prepared:
    """An image unpacked, now if it was not yet.

    Args:
        source: where the image is.
        image: its manifest.
        directory: what has the bundles of all images.

    Raises:
        OciError: as `ocitool.unpack.unpack`.
    """
    while (found := ready(str(image.digest), directory)) is None:
        _make(source, image, _bundle(str(image.digest), directory))
    return found


def ready(digest: str, directory: str | PathLike[str]) -> Prepared | None:
    """An image that was unpacked before, by the digest of its manifest; None where it was not.

    Raises:
        NotFound: one of its layers is gone.
    """
    bundle = _bundle(digest, directory)
    fd = _held(bundle)
    return None if fd is None else Prepared(bundle, fd)


def is_there(digest: str, directory: str | PathLike[str]) -> bool:
    """Whether an image is unpacked, by the digest of its manifest."""
    return os.path.isdir(_bundle(digest, directory))


def _bundle(digest: str, directory: str | PathLike[str]) -> str:
    return os.path.join(directory, digest.replace(":", "-"))


def is_stacked(bundle: str | PathLike[str]) -> bool:
    """Whether a bundle's root file system is made of layers."""
    return os.path.exists(f"{bundle}/{FILE}")


def stack_of(bundle: str | PathLike[str]) -> Stack:
    """What makes the root file system of a bundle: layers, or its own directory.

    Raises:
        InvalidContent: the bundle's list of layers is none.
        NotFound: a layer is gone.
    """
    if is_stacked(bundle):
        what = f"{bundle}/{FILE}"
        stack = Stack.of(read(what), what)
    else:
        rootfs = f"{bundle}/rootfs"
        stack = Stack((rootfs,), rootfs, userxattr=os.geteuid() != 0)
    stack.check()
    return stack


def read(path: str) -> dict[str, Any]:
    """A document of a bundle, read as the runtime reads it, which has no time for more.

    Raises:
        InvalidContent: it is not a JSON object, or too large. NotFound: it does not exist.
        RunError: it can't be read.
    """
    document = jsonfast.loads(read_file(path, "bundle"), path)
    if not isinstance(document, dict):
        raise InvalidContent(f"{path} is not an object")
    return document


def _make(source: Source, image: Descriptor, bundle: str) -> None:
    from pathlib import Path

    from ocitool.unpack import UnpackOptions, staging, unpack
    from ocitool.unpack.idmap import IdMap

    target = Path(bundle)
    alone = os.geteuid() == 0 or IdMap.delegated() is None
    if target.parent.is_dir():
        staging.collect(target.parent)
    cache = target.parent / _LAYERS
    fd = _locked(cache, fcntl.LOCK_SH)
    try:
        unpack(source, image, target, options=UnpackOptions(layer_cache=cache if alone else None))
    except Conflict:
        return  # who made it at the same time made the same, and the first one to end gave it its name
    finally:
        os.close(fd)


def _locked(cache: Path, how: int) -> int:
    """A descriptor that keeps others from removing layers, or from adding some."""
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OciError(f"{cache} can't be made: {error.strerror}", hint=places.STORE_HINT) from error
    fd = os.open(cache, _OPEN_DIRECTORY)
    try:
        fcntl.flock(fd, how)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _held(bundle: str | PathLike[str]) -> int | None:
    """A descriptor whose lock keeps a bundle where it is; None where there is none."""
    try:
        fd = os.open(bundle, _OPEN_DIRECTORY)
    except FileNotFoundError:
        return None
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        if os.path.samestat(os.fstat(fd), os.stat(bundle)):
            return fd
    except FileNotFoundError:
        pass
    os.close(fd)
    return None


def remove_unused(
    directory: str | PathLike[str],
    is_used: Callable[[Digest], bool],
    *,
    really: bool,
    leaving: Callable[[Path], None] | None = None,
) -> list[Digest]:
    """Remove bundles of images that are not used any more, and layers that only they had, or only list them.

    What a container runs on stays.

    Args:
        directory: what has the bundles of all images.
        is_used: whether an image is, by the digest of its manifest.
        really: remove them.
        leaving: is told of each tree before it goes, as of those that interrupted processes left.

    Returns:
        The digests of the images, and the diff IDs or chain IDs of the layers.
    """
    if not os.path.isdir(directory):
        return []
    from pathlib import Path

    from ocitool.digest import Digest
    from ocitool.unpack import overlay, staging
    from ocitool.unpack.disposal import dispose

    directory = Path(directory)
    staging.collect(directory, really=really, leaving=leaving)
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
            if leaving:
                leaving(bundle)
            if really:
                dispose(bundle)
            removed.append(digest)
        except BlockingIOError:
            kept.append(bundle)
        finally:
            os.close(fd)
    cache = directory / _LAYERS
    try:
        fd = _locked(cache, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return removed
    try:
        return removed + overlay.remove_unused(cache, kept, really=really, leaving=leaving)
    finally:
        os.close(fd)


def overlay(stack: Stack, container: str | PathLike[str]) -> Overlay:
    """What to mount as a container's root: a stack, with the container's changes in its own directory."""
    from ocitool.run import Overlay

    rootfs, upper, work = (f"{container}/{name}" for name in ("rootfs", "upper", "work"))
    try:
        info = os.stat(stack.root)
        for path in (rootfs, upper, work):
            os.mkdir(path, 0o700)
        # The root directory of the container is the upper one.
        os.chown(upper, info.st_uid, info.st_gid)
        os.chmod(upper, info.st_mode & 0o7777)
        os.utime(upper, ns=(info.st_mtime_ns, info.st_mtime_ns))
    except OSError as error:
        raise OciError(f"{container} can't be made ready: {error.strerror}") from error
    return Overlay(rootfs, list(stack.lowers), upper=upper, work=work, userxattr=stack.userxattr)


def process_of(bundle: str, config: ImageConfig, user: str) -> dict[str, Any]:
    """The process of a bundle's configuration where it runs as another user of the image.

    Raises:
        InvalidContent: the image has no such user.
    """
    from ocitool.unpack.bundle import runtime_config

    process: dict[str, Any] = runtime_config(config, _accounts(bundle).find(user))["process"]
    return process


def groups_of(bundle: str, groups: Sequence[str]) -> tuple[int, ...]:
    """The numbers of groups, by what a bundle's image says of their names.

    Raises:
        InvalidContent: the image has no such group.
    """
    found = _accounts(bundle)
    return tuple(found.group(group) for group in groups)


def _accounts(bundle: str) -> Accounts:
    from pathlib import Path

    from ocitool.unpack.union import opened
    from ocitool.unpack.users import Accounts

    with opened(Path(bundle)) as tree:
        passwd, group = (tree.read(path, limit=_ACCOUNT_BYTES) for path in (b"etc/passwd", b"etc/group"))
    return Accounts.parse(passwd or b"", group or b"")
