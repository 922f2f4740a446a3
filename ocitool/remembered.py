"""What the name of an image meant when it was last run: while its layout is the same, so is the answer.

A layout's `index.json` is the only thing in it that changes; what it leads to is named by digest. So a name
means the same as before while that file is the very same one. The answers stand in `names.json` beside the
images that are unpacked already (see `ocitool.prepared`), and were verified when they were found.
"""

from __future__ import annotations

import fcntl
import os
import time

from ocitool.errors import InvalidContent
from ocitool.run import jsonfast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

_FILE = "names.json"
_MOST = 64  # names that are kept, the latest first
# A file that has just changed may change again within one tick of its file system's clock, and look the same.
_SETTLED = 1_000_000_000  # nanoseconds


class Image:
    """What has to be known of an image to run it where it is unpacked already.

    Attributes:
        digest: of its manifest.
        platform: what it is for, as `ocitool.platforms` writes it.
        entrypoint, command: from which the program's arguments are put together.
        volumes: where it wants file systems of their own.
    """

    def __init__(
        self,
        digest: str,
        platform: str,
        entrypoint: tuple[str, ...],
        command: tuple[str, ...],
        volumes: tuple[str, ...],
    ) -> None:
        self.digest = digest
        self.platform = platform
        self.entrypoint = entrypoint
        self.command = command
        self.volumes = volumes


class Question:
    """A name, and all that its meaning depends on but the layout's content.

    Args:
        location: what was typed.
        store: the local store.
        platform: the platform that was asked for, or "".
    """

    def __init__(self, location: str, store: str, platform: str) -> None:
        relative = location.startswith(("./", "../")) or (location[:4] == "oci:" and location[4:5] != "/")
        self._words = [
            location,
            os.getcwd() if relative else "",
            os.path.abspath(store),
            platform or os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),
            os.uname().machine,
        ]

    def remembered(self, directory: str) -> Image | None:
        """The answer that was found before and still holds; None where there is none.

        Args:
            directory: what has the bundles of all images.
        """
        for entry in _entries(directory):
            try:
                if entry["asked"] != self._words or entry["index"] != seen(entry["path"]):
                    continue
                image = entry["image"]
                lists = [tuple(image[key]) for key in ("entrypoint", "command", "volumes")]
                return Image(image["digest"], image["platform"], *lists)
            except (KeyError, TypeError):
                continue  # not what we write
        return None

    def remember(self, directory: str, path: str, index: list[int] | None, image: Image) -> None:
        """Keep an answer, unless it may not hold.

        Args:
            directory: what has the bundles of all images.
            path: the `index.json` that it came from.
            index: what `seen` said of that before the answer was looked for.
            image: the answer.
        """
        if index is None or index != seen(path):
            return
        new = {"asked": self._words, "path": path, "index": index, "image": vars(image)}

        def added(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            others = [entry for entry in entries if entry.get("asked") != self._words]
            return [new, *others[: _MOST - 1]]

        _change(directory, added)


def seen(path: str) -> list[int] | None:
    """What tells a file from every other one, and from itself after a change.

    None where there is no file, or where it has just changed.
    """
    try:
        # By a descriptor: to open a file is what makes a network's file system ask for its present state.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        info = os.fstat(fd)
    finally:
        os.close(fd)
    if time.time_ns() - info.st_ctime_ns < _SETTLED:
        return None
    return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def forget(directory: str, is_there: Callable[[str], bool]) -> None:
    """Drop what was remembered of images that are not there any more, by the digests of their manifests."""

    def kept(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        images = [(entry, entry.get("image")) for entry in entries]
        return [entry for entry, image in images if isinstance(image, dict) and is_there(image["digest"])]

    if os.path.exists(f"{directory}/{_FILE}"):
        _change(directory, kept)


def _entries(directory: str) -> list[dict[str, Any]]:
    try:
        fd = os.open(f"{directory}/{_FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    with open(fd, "rb") as file:
        fcntl.flock(fd, fcntl.LOCK_SH)
        return _read(file)


def _read(file: BinaryIO) -> list[dict[str, Any]]:
    try:
        found = jsonfast.loads(file.read(), _FILE)
    except InvalidContent:
        return []  # whoever wrote it was killed
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _change(directory: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the file, if that can be done: it only saves time.

    In its place, so that nobody who is killed leaves another one beside it. It goes with its last entry.
    """
    path = f"{directory}/{_FILE}"
    try:
        os.makedirs(directory, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "r+b") as file:
            fcntl.flock(fd, fcntl.LOCK_EX)
            entries = change(_read(file))
            file.seek(0)
            file.truncate()
            file.write(jsonfast.dumps(entries).encode("ascii"))
            if not entries:
                os.unlink(path)
    except OSError:
        return
