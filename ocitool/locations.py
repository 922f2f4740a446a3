"""Locations: where an image is or goes, as people write it, and the store behind it.

==================================================  ============================================
`alpine:3.20`, `host/org/app@sha256:…`, `docker://…`  a repository of a registry
`oci:DIR[:TAG]`, `oci:DIR@sha256:…`                 an image layout
`oci-archive:FILE[:TAG]`                            an image layout in one tar file
`docker-archive:FILE[:REF]`                         what `docker save` writes
`store:REF`                                         the local store
a path that starts with `/`, `./` or `../`          a layout or an archive, told apart by looking
==================================================  ============================================
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from ocitool import places
from ocitool.digest import Digest
from ocitool.errors import Conflict, InvalidReference, NotFound, OciError
from ocitool.events import Event, Finished, OnEvent, ignore
from ocitool.reference import Reference, is_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ocitool.content import Source, Store
    from ocitool.layout import LayoutStore
    from ocitool.layout.archive import ArchiveFormat
    from ocitool.registry import Client, ClientConfig

T = TypeVar("T")


class Kind(Enum):
    """What sort of place a location is."""

    REGISTRY = "docker"
    LAYOUT = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"
    STORE = "store"


_FOREIGN: Final = {
    "dir": "skopeo copy dir:DIR oci:DIR:TAG",
    "containers-storage": "podman save --format oci-archive IMAGE -o FILE",
    "docker-daemon": "docker save IMAGE -o FILE",
}


@dataclass(frozen=True, slots=True)
class Location:
    """A place, and the name of an image in it.

    `reference` is set for a registry and the local store; `path` and `ref` for a file or directory, where
    `ref` is a tag, a digest, or "" for the only image in it.
    """

    kind: Kind
    reference: Reference | None = None
    path: Path = Path()
    ref: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read a location.

        Raises:
            InvalidReference: it is none of the forms above.
        """
        scheme, colon, rest = text.partition(":")
        if colon and scheme in _FOREIGN:
            raise InvalidReference(
                f"{scheme}: is another tool's storage, which ocitool does not read",
                hint=f"export it first: {_FOREIGN[scheme]}",
            )
        if text.startswith(("/", "./", "../")):
            return _looked_at(*_path_and_ref(text))
        if scheme == "docker" and rest.startswith("//"):
            return cls(Kind.REGISTRY, Reference.parse(rest[2:]))
        if scheme == "store" and colon and rest:
            return cls(Kind.STORE, Reference.parse(rest))
        if scheme in {"oci", "oci-archive", "docker-archive"} and colon:
            path, ref = _path_and_ref(rest)
            return cls(Kind(scheme), path=path, ref=ref)
        return cls(Kind.REGISTRY, Reference.parse(text))

    @property
    def name(self) -> str:
        """What to ask the store behind the location for."""
        if self.reference is None:
            return self.ref
        if self.kind is Kind.REGISTRY:
            return self.reference.ref
        return str(self.reference)

    @property
    def stored(self) -> Location:
        """The same place, but the local store in place of a registry, as `push` and `repack` read it."""
        return Location(Kind.STORE, self.reference) if self.kind is Kind.REGISTRY else self

    def name_for(self, origin: Reference) -> str:
        """What an image of a registry is called here: what was asked for, else its tag, "" where it has none.

        In what `docker load` reads, that is its full name.
        """
        if self.name or (origin.digest and not origin.tag):
            return self.name
        return origin.tagged if self.kind is Kind.DOCKER_ARCHIVE else origin.tag or origin.ref

    def __str__(self) -> str:
        if self.kind is Kind.REGISTRY:
            return str(self.reference)
        if self.reference:
            return f"{self.kind.value}:{self.reference}"
        separator = "@" if is_digest(self.ref) else ":"
        return f"{self.kind.value}:{self.path}{separator + self.ref if self.ref else ''}"


def _path_and_ref(text: str) -> tuple[Path, str]:
    """Split at the first colon, as every tool that reads this notation does; `@sha256:…` is a digest."""
    path, at, digest = text.partition("@")
    if at and digest.startswith(("sha256:", "sha512:")):
        ref = str(Digest.parse(digest))
    else:
        path, _, ref = text.partition(":")
    if not path:
        raise InvalidReference(f"{text!r} names no file or directory")
    return Path(path), ref


def _looked_at(path: Path, ref: str) -> Location:
    """A path says by itself what it is; one that is not there yet becomes a layout."""
    if not path.is_file():
        return Location(Kind.LAYOUT, path=path, ref=ref)
    from ocitool.layout import archive_format

    return Location(Kind(archive_format(path)), path=path, ref=ref)


def _check_directory(archive: Path) -> None:
    """Say now, and not when all has been copied, that an archive can't be made."""
    if archive.is_dir():
        raise Conflict(
            f"{archive} is a directory, and an archive is a file", hint="an image layout is named oci:DIR"
        )
    directory = archive.parent
    if not directory.is_dir():
        raise NotFound(f"there is no directory {directory} to make the archive {archive.name} in")
    if str(archive) != "-" and not os.access(directory, os.W_OK):
        raise OciError(f"the archive {archive.name} can't be made in {directory}: you may not write there")


def _check_makeable(store: Path) -> None:
    """Say of the local store, whose place nobody has typed, what would help where it can't be made."""
    places_above = (store, *store.absolute().parents)
    there = next(path for path in places_above if os.path.exists(path))  # noqa: PTH110 - says no where it may not look
    if there != store and not os.access(there, os.W_OK):
        raise OciError(
            f"the local store {store} can't be made: you may not write in {there}", hint=places.STORE_HINT
        )


def local_store() -> Path:
    """See `places.local_store`."""
    return Path(places.local_store())


class Session:
    """The stores behind locations, for as long as one command runs.

    Connections, and what is known of credentials, are shared between all registries of a session; a
    registry is not connected to before it is used.
    """

    def __init__(
        self,
        config: Callable[[], ClientConfig] | None = None,
        *,
        store: Path | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        """Open nothing yet; `config` is called when a registry is first used, which loads much."""
        self.on_event = on_event
        self._store = store
        self._make_config = config
        self.verify = False
        """Whether content that a layout has already is read and compared with its digest, not its size."""
        self._client: Client | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # With the error, for an archive is written at its end, and only where nothing went wrong.
        self._stack.__exit__(kind, error, trace)

    def beside(self, config: Callable[[], ClientConfig]) -> Session:
        """A session that talks to registries in another way, and ends with this one."""
        other = Session(config, store=self._store, on_event=self.on_event)
        return self._stack.enter_context(other)

    def opened(self, resource: AbstractContextManager[T]) -> T:
        """Something else that is closed when the session ends."""
        return self._stack.enter_context(resource)

    def finish(self) -> None:
        """Write what is written last, and close what is open: what follows may rely on it."""
        self._stack.close()

    @cached_property
    def config(self) -> ClientConfig:
        """How to talk to registries."""
        from ocitool.registry import ClientConfig

        return self._make_config() if self._make_config else ClientConfig()

    @property
    def client(self) -> Client:
        """The one client of the session."""
        if self._client is None:
            from ocitool.registry import Client

            self._client = self._stack.enter_context(Client(self.config, on_event=self.on_event))
        return self._client

    @cached_property
    def store_path(self) -> Path:
        """Where the local store is.

        Raises:
            OciError: nobody has said so, and the user has no home directory.
        """
        return self._store or local_store()

    @cached_property
    def local(self) -> LayoutStore:
        """The local store.

        Raises:
            OciError: it is not there yet, and can't be made there.
        """
        _check_makeable(self.store_path)
        return self._layout(self.store_path, create=True)

    def layout_of(self, location: Location) -> Path | None:
        """The layout that a location's image is in, or is pulled to by those who run it."""
        if location.kind in {Kind.REGISTRY, Kind.STORE}:
            return self.store_path
        return location.path if location.kind is Kind.LAYOUT else None

    def source(self, location: Location) -> Source:
        """What to read from; `location.name` is the image's name in it."""
        if location.kind is Kind.REGISTRY:
            return self._repository(location)
        if location.kind is Kind.STORE:
            return self.local
        if location.kind is Kind.LAYOUT:
            return self._layout(location.path, create=False)
        from ocitool.layout import ArchiveSource

        return self._stack.enter_context(ArchiveSource(location.path))

    def store(self, location: Location) -> Store:
        """What to write to."""
        if location.kind is Kind.REGISTRY:
            return self._repository(location)
        if location.kind is Kind.STORE:
            return self.local
        from ocitool.layout import ArchiveWriter, check_name

        check_name(location.ref)  # now, and not when all has been copied
        if location.kind is Kind.LAYOUT:
            return self._layout(location.path, create=True)
        _check_directory(location.path)
        kind: ArchiveFormat = "docker-archive" if location.kind is Kind.DOCKER_ARCHIVE else "oci-archive"
        return self._stack.enter_context(ArchiveWriter(location.path, kind, on_event=self.on_event))

    def watching(self, target: Location) -> OnEvent:
        """The listener for a copy to a place.

        An archive first only notes where blobs are to be had. They move, and are told of, when it is written.
        """
        if target.kind not in {Kind.OCI_ARCHIVE, Kind.DOCKER_ARCHIVE}:
            return self.on_event

        def moved(event: Event) -> None:
            if not (isinstance(event, Finished) and event.how == "mounted"):
                self.on_event(event)

        return moved

    def _layout(self, path: Path, *, create: bool) -> LayoutStore:
        """A layout, which guards what it has found and added until the session ends."""
        from ocitool.layout import LayoutStore

        store = LayoutStore(path, create=create, verify=self.verify)
        self._stack.callback(store.close)
        return store

    def _repository(self, location: Location) -> Store:
        assert location.reference is not None  # noqa: S101 - a registry's location has one
        return self.client.repository(location.reference)
