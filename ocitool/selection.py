"""Which manifests of an index are meant, and the index that is written for them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

from ocitool import limits, mediatypes, strictjson
from ocitool.content import Source, read_config, read_manifest
from ocitool.errors import InvalidContent, NotFound
from ocitool.model import Descriptor, Index, Manifest
from ocitool.platforms import Platform, candidates, runs_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocitool.digest import Digest
    from ocitool.streams import Reader

# How builders mark a manifest that says something about another one of the same index.
_ATTESTED: Final = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of an index a copy takes.

    Without platforms: everything. With `platforms`, what is written is a new, smaller index with a digest
    of its own, or, where `sparse` is set, the index as it is, digest and all, with the other manifests
    left out.
    """

    platforms: tuple[Platform, ...] = ()
    sparse: bool = False


EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The one platform that a pull takes; `named` where a person asked for it and it was no default."""

    platform: Platform
    named: bool = False

    def under(self, source: Source, root: Descriptor) -> Descriptor:
        """The manifest for the platform under a root.

        A lone image of another platform is taken unless the platform was named.

        Raises:
            NotFound: there is no such manifest.
        """
        return (require if self.named else choose)(source, root, self.platform)


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selection comes to: where to read, from which root, and which children of it are left out."""

    source: Source
    root: Descriptor
    left_out: frozenset[Digest] = frozenset()


def choose(source: Source, root: Descriptor, wanted: Platform) -> Descriptor:
    """The manifest for a platform under a root, which may be an index, nested ones included.

    image-spec, image-index.md: "If multiple manifests match a client or runtime's requirements, the first
    matching entry SHOULD be used."

    Returns:
        `root` itself where it is no index.

    Raises:
        NotFound: there is none; the message lists the platforms that there are.
    """
    if not root.is_index:
        return root
    entries = list(_images(source, root))
    for platform in candidates(wanted):
        for entry in entries:
            if entry.platform and runs_on(entry.platform, platform):
                return entry
    # An entry that does not say what it runs on may run on anything: the last resort.
    for entry in entries:
        if entry.platform is None:
            return entry
    raise NotFound(
        f"index {root.digest} has no manifest for {wanted}",
        hint=f"it has {_names(entries)}; choose one with --platform",
    )


def require(source: Source, root: Descriptor, wanted: Platform) -> Descriptor:
    """As `choose`, for a platform that a person named: a lone image of another platform is refused too.

    Raises:
        NotFound: there is no manifest for the platform.
    """
    chosen = choose(source, root, wanted)
    # What a descriptor outside an index says of its platform is hearsay: ask the image.
    if not root.is_index or chosen.platform is None:
        manifest = read_manifest(source, chosen)
        if isinstance(manifest, Manifest) and manifest.config.media_type in mediatypes.CONFIGS:
            actual = read_config(source, manifest).platform
            if not any(runs_on(actual, platform) for platform in candidates(wanted)):
                raise NotFound(f"image {chosen.digest} is for {actual}, not {wanted}")
    return chosen


def select(source: Source, root: Descriptor, selection: Selection) -> Selected:
    """Apply a selection to a root.

    Raises:
        NotFound: one of the platforms is not under the root.
    """
    if not selection.platforms:
        return Selected(source, root)
    if not root.is_index:
        for platform in selection.platforms:
            require(source, root, platform)
        return Selected(source, root)
    index = _index(source, root)
    chosen = {_entry(source, root, index, platform) for platform in selection.platforms}
    attested = {str(digest) for digest in chosen}
    chosen |= {entry.digest for entry in index.manifests if entry.annotations.get(_ATTESTED) in attested}
    left_out = frozenset(entry.digest for entry in index.manifests) - chosen
    if selection.sparse or not left_out:
        return Selected(source, root, left_out)
    smaller = _without(index, left_out)
    desc = Descriptor.of(index.media_type, smaller)
    return Selected(_With(source, desc, smaller), desc)


def _entry(source: Source, root: Descriptor, index: Index, platform: Platform) -> Digest:
    """The entry of the index itself under which a platform's manifest is found."""
    chosen = choose(source, root, platform)
    for entry in index.manifests:
        if entry == chosen or (entry.is_index and chosen in _images(source, entry)):
            return entry.digest
    raise NotFound(
        f"index {root.digest} has no manifest for {platform}"
    )  # pragma: no cover - choose found it


def _without(index: Index, left_out: frozenset[Digest]) -> bytes:
    """The index's own JSON less some entries; every field that ocitool does not know stays."""
    fields = strictjson.load_object(index.raw, "index")
    kept = zip(fields["manifests"], index.manifests, strict=True)
    fields["manifests"] = [raw for raw, entry in kept if entry.digest not in left_out]
    return strictjson.dumps(fields)


def _images(source: Source, root: Descriptor, depth: int = 0) -> Iterator[Descriptor]:
    """The entries that could be run, in the order of the index, nested indexes unfolded."""
    if depth > limits.INDEX_NESTING:
        raise InvalidContent(f"index {root.digest} is nested deeper than {limits.INDEX_NESTING} levels")
    for entry in _index(source, root).manifests:
        if entry.is_index:
            yield from _images(source, entry, depth + 1)
        elif entry.media_type in mediatypes.IMAGE_MANIFESTS and not (
            entry.platform and entry.platform.is_unknown
        ):
            yield entry


def _index(source: Source, desc: Descriptor) -> Index:
    index = read_manifest(source, desc)
    if not isinstance(index, Index):
        raise InvalidContent(f"{desc.digest} is not an index")
    return index


def _names(entries: Iterable[Descriptor]) -> str:
    names = dict.fromkeys(str(entry.platform) for entry in entries if entry.platform)
    return ", ".join(names) or "no images"


class _With:
    """A source and one more document."""

    def __init__(self, source: Source, desc: Descriptor, content: bytes) -> None:
        self._source = source
        self._desc = desc
        self._content = content

    def resolve(self, ref: str, /) -> Descriptor:
        return self._source.resolve(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        if desc == self._desc:
            return nullcontext(BytesIO(self._content[offset:]))
        return self._source.fetch(desc, offset=offset)
