"""Applying a bundle: nothing is written before everything that can be known beforehand has been checked.

The order: what the bundle presumes is looked for on the far side; the bundle is read and verified from end to
end; then blobs, manifests from the leaves up, and, when all of that is there, the names. Applying it again
does no harm, and goes on where an earlier attempt stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from ocitool.bundle.verification import require_sound
from ocitool.content import Mounter
from ocitool.errors import Conflict, InvalidReference, NotFound
from ocitool.events import OnEvent, Planned, ignore
from ocitool.graph import survey
from ocitool.reference import check_tag
from ocitool.selection import EVERYTHING, Selection
from ocitool.transfer import move
from ocitool.workers import JOBS, each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from typing import Protocol

    from ocitool.bundle.inventory import Entry, Image
    from ocitool.bundle.source import BundleSource
    from ocitool.content import Source, Store
    from ocitool.digest import Digest
    from ocitool.graph import Graph
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

    class Destination(Protocol):
        """The far side: one store, or the repositories of a registry."""

        def place(self, repository: str, tag: str, /) -> Place:
            """Where an image goes; an empty tag gives it no name.

            Raises:
                InvalidReference: it can't be called so there.
            """
            ...

        def holders(self, repository: str, /) -> Iterable[Source]:
            """Where content may be that was seen in a repository, as an inventory calls it."""
            ...


_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is on the far side.

    Attributes:
        store: the store that it is in.
        ref: what it is called in that store, or "".
        name: what people call it, or "".
    """

    store: Store
    ref: str
    name: str


class Renaming:
    """Rules `FROM=TO` for repositories: the longest FROM that a name starts with becomes TO."""

    def __init__(self, rules: Mapping[str, str] | None = None) -> None:
        """Take rules; FROM matches whole components only, and "" matches every name."""
        self._rules = sorted((rules or {}).items(), key=lambda rule: len(rule[0]), reverse=True)

    def __call__(self, repository: str) -> str | None:
        """The new name, or None where no rule matches."""
        for start, new in self._rules:
            if repository == start or not start or repository.startswith(start + "/"):
                return _joined(new, repository[len(start) :])
        return None


class OneStore:
    """A far side that is one store, such as a layout: names stay whole."""

    def __init__(self, store: Store, renaming: Renaming | None = None) -> None:
        self._store = store
        self._renaming = renaming or Renaming()

    def place(self, repository: str, tag: str, /) -> Place:
        """See `Destination`."""
        renamed = self._renaming(repository) if repository else None
        repository = repository if renamed is None else renamed
        name = f"{repository}:{tag}" if repository and tag else tag
        return Place(self._store, name, name)

    def holders(self, repository: str, /) -> Iterable[Source]:
        """See `Destination`."""
        del repository  # all content is in the one store
        return [self._store]


class RegistryDestination:
    """A far side that is a registry: `host/path` of each image becomes `registry/prefix/path`."""

    def __init__(
        self,
        open_repository: Callable[[str], Store],
        registry: str,
        prefix: str = "",
        renaming: Renaming | None = None,
    ) -> None:
        """Name the registry; nothing is asked yet.

        Args:
            open_repository: gives the store of a repository from its full name.
            registry: its host and port.
            prefix: what stands before every repository there, or "".
            renaming: rules on the bundle's names; a result follows the prefix.
        """
        self._open = open_repository
        self._registry = registry
        self._prefix = prefix
        self._renaming = renaming or Renaming()
        self._stores: dict[str, Store] = {}

    def place(self, repository: str, tag: str, /) -> Place:
        """See `Destination`."""
        if tag:
            check_tag(tag)
        path = _joined(self._prefix, self._path(repository))
        if not path:
            raise InvalidReference(
                f"the image {tag or 'without a name'} has no repository in the bundle",
                hint=f"say which one it shall be in: {self._registry}/REPOSITORY",
            )
        name = f"{self._registry}/{path}"
        return Place(self._store(name), tag, f"{name}:{tag}" if tag else "")

    def _path(self, repository: str) -> str:
        renamed = self._renaming(repository)
        return _without_host(repository) if renamed is None else renamed

    def _store(self, name: str) -> Store:
        if name not in self._stores:
            self._stores[name] = self._open(name)
        return self._stores[name]

    def holders(self, repository: str, /) -> Iterable[Source]:
        """See `Destination`: a repository of this very registry, or one of a bundle that was applied here."""
        if repository.startswith(self._registry + "/"):
            yield self._store(repository)
        if path := _joined(self._prefix, self._path(repository)):
            yield self._store(f"{self._registry}/{path}")


def _without_host(repository: str) -> str:
    """Docker's rule: what stands before the first slash is a host if it could not be a user's name."""
    host, slash, path = repository.partition("/")
    is_host = slash and ("." in host or ":" in host or host == "localhost")
    return path if is_host else repository


def _joined(*parts: str) -> str:
    return "/".join(part for part in (part.strip("/") for part in parts) if part)


@dataclass(frozen=True, slots=True)
class _Step:
    """One image on its way."""

    image: Image
    place: Place

    @property
    def selection(self) -> Selection:
        return Selection(self.image.platforms, sparse=True) if self.image.platforms else EVERYTHING


def apply(
    bundle: BundleSource, destination: Destination, *, jobs: int = JOBS, on_event: OnEvent = ignore
) -> dict[str, Image]:
    """Bring everything in a bundle to the far side.

    Args:
        bundle: the bundle.
        destination: the far side.
        jobs: how many blobs may be on their way at once.
        on_event: is told what happens.

    Returns:
        The images whose names are new or have moved, by what they are called on the far side.

    Raises:
        NotFound: the far side lacks what the bundle presumes; nothing has been written.
        IntegrityError: the bundle is damaged; nothing has been written.
        Conflict: two images would get one name; nothing has been written.
        OciError: whatever the far side raises. No name of it stands for half an image.
    """
    steps = _steps(bundle, destination)
    origins = _presumed(bundle, destination, steps, jobs)
    require_sound(bundle, jobs=jobs, on_event=on_event)
    on_event(Planned(tuple(entry.descriptor for entry in bundle.inventory.content.values())))
    everything = _Everything(bundle, origins)
    by_store: dict[int, list[_Step]] = {}
    for step in steps:
        by_store.setdefault(id(step.place.store), []).append(step)
    for group in by_store.values():
        graphs = [survey(everything, step.image.root, platforms=step.selection, jobs=jobs) for step in group]
        _bring(everything, group[0].place.store, graphs, jobs, on_event)
    return {step.place.name: step.image for step in steps if _name(step)}


def _steps(bundle: BundleSource, destination: Destination) -> list[_Step]:
    steps: list[_Step] = []
    taken: dict[str, Image] = {}
    for image in bundle.inventory.images:
        place = destination.place(image.repository, image.tag)
        other = taken.setdefault(place.name, image) if place.name else image
        if other.root != image.root:
            raise Conflict(
                f"{other} and {image} would both be called {place.name}",
                hint="keep them apart with --rename FROM=TO",
            )
        steps.append(_Step(image, place))
    return steps


def _presumed(
    bundle: BundleSource, destination: Destination, steps: list[_Step], jobs: int
) -> dict[Digest, Source]:
    """Where on the far side everything is that the bundle presumes.

    Raises:
        NotFound: some of it is nowhere.
    """
    stores = {id(step.place.store): step.place.store for step in steps}

    def find(entry: Entry) -> Source | None:
        needed = [destination.place(repository, "").store for repository in entry.repositories or ("",)]
        seen = [holder for name in entry.holders for holder in destination.holders(name)]
        for store in {id(store): store for store in (*needed, *seen, *stores.values())}.values():
            if _has(store, entry.descriptor):
                return store
        return None

    entries = list(bundle.inventory.presumed.values())
    found = dict(zip(bundle.inventory.presumed, each(find, entries, jobs=jobs), strict=True))
    missing = [entry for entry in entries if found[entry.descriptor.digest] is None]
    if missing:
        raise _missing(bundle, missing)
    return {digest: source for digest, source in found.items() if source is not None}


def _has(source: Source, desc: Descriptor) -> bool:
    from ocitool.content import Store

    return isinstance(source, Store) and source.exists(desc)


def _missing(bundle: BundleSource, missing: list[Entry]) -> NotFound:
    count, size = len(missing), sum(entry.descriptor.size for entry in missing)
    error = NotFound(
        f"the far side lacks {count} of the {len(bundle.inventory.presumed)} pieces of content that"
        f" {bundle.name} presumes there ({size} bytes); nothing was written",
        hint="apply the bundles before this one first, or make it again with --have and an inventory of"
        " this place",
    )
    for entry in missing[:_SHOWN]:
        where = ", ".join(filter(None, entry.repositories))
        error.add_note(f"missing: {entry.descriptor.digest}{f' of {where}' if where else ''}")
    if count > _SHOWN:
        error.add_note(f"and {count - _SHOWN} more")
    return error


class _Everything:
    """What the bundle holds, and behind it what it presumes."""

    def __init__(self, bundle: BundleSource, origins: dict[Digest, Source]) -> None:
        self._bundle = bundle
        self.origins = origins

    def source(self, desc: Descriptor) -> Source:
        return self.origins.get(desc.digest, self._bundle)

    def resolve(self, ref: str, /) -> Descriptor:
        return self._bundle.resolve(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        return self.source(desc).fetch(desc, offset=offset)


def _bring(everything: _Everything, store: Store, graphs: list[Graph], jobs: int, on_event: OnEvent) -> None:
    """Move what some images need into one store, names left out."""
    leaves = {digest: desc for graph in graphs for digest, desc in graph.leaves.items()}
    sources: dict[int, tuple[Source, list[Descriptor]]] = {}
    for desc in sorted(leaves.values(), key=lambda leaf: leaf.size, reverse=True):
        source = everything.source(desc)
        sources.setdefault(id(source), (source, []))[1].append(desc)
    for source, descs in sources.values():
        move(source, store, descs, jobs=jobs, on_event=on_event)
    moved: set[Digest] = set()
    for ranks in zip_longest(*(graph.ranks() for graph in graphs), fillvalue=[]):
        documents = {desc.digest: desc for rank in ranks for desc in rank if desc.digest not in moved}
        move(everything, store, documents.values(), jobs=jobs, on_event=on_event)
        moved |= documents.keys()
    if isinstance(store, Mounter):
        # The registry's other repositories can have these from this one, without another upload.
        everything.origins |= dict.fromkeys(leaves, store)


def _name(step: _Step) -> bool:
    """Give an image its name; whether that was something new."""
    root, store, ref = step.image.root, step.place.store, step.place.ref
    if ref and _resolved(store, ref) == root:
        return False
    store.tag(root, ref or str(root.digest))
    return bool(ref)


def _resolved(store: Store, ref: str) -> Descriptor | None:
    try:
        return store.resolve(ref)
    except NotFound:
        return None
