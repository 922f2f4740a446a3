"""Which manifests of an index are meant, and the index that is written for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ocitool import limits, mediatypes, strictjson
from ocitool.content import Source, read_config, read_manifest, read_verified
from ocitool.errors import NotFound, UnsafeContent
from ocitool.model import Descriptor, Index, Manifest
from ocitool.platforms import Platform, candidates, runs_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocitool.digest import Digest

# How builders mark a manifest that says something about another one of the same index.
_ATTESTED: Final = "vnd.docker.reference.digest"
_NAMES_SHOWN: Final = 30


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
    """What a selection comes to: a root, and which of its children are left out.

    A new index is not in the source: the root carries it in its `data`.
    """

    root: Descriptor
    left_out: frozenset[Digest] = frozenset()


def choose(source: Source, root: Descriptor, wanted: Platform) -> Descriptor:
    """The manifest for a platform under a root, which may be an index, nested ones included.

    image-spec, image-index.md: "If multiple manifests match a client or runtime's requirements, the first
    matching entry SHOULD be used."

    Returns:
        `root` itself where it is no index.

    Raises:
        NotFound: there is none; the hint lists the platforms that there are.
    """
    if not root.is_index:
        return root
    images = list(_images(source, _index(source, root).manifests, {root.digest}))
    return _pick(source, root, images, wanted)


def require(source: Source, root: Descriptor, wanted: Platform) -> Descriptor:
    """As `choose`, for a platform that a person named: a lone image of another platform is refused too.

    Raises:
        NotFound: there is no manifest for the platform.
    """
    if root.is_index:
        return choose(source, root, wanted)
    # What a descriptor outside an index says of its platform is hearsay: ask the image.
    actual = _own_platform(source, root)
    if not _suits(actual, wanted):
        named = f"{actual!s:.60}" or "no platform that it names"
        raise NotFound(f"image {root.digest} is for {named}, not {wanted}")
    return root


def select(source: Source, root: Descriptor, selection: Selection) -> Selected:
    """Apply a selection to a root.

    Raises:
        NotFound: one of the platforms is not under the root.
    """
    if not selection.platforms:
        return Selected(root)
    if not root.is_index:
        for platform in selection.platforms:
            require(source, root, platform)
        return Selected(root)
    index = _index(source, root)
    left_out = _left_out(source, root, index, selection.platforms)
    if selection.sparse or not left_out:
        return Selected(root, left_out)
    smaller = _without(index, left_out)
    return Selected(replace(Descriptor.of(index.media_type, smaller), data=smaller))


def _left_out(
    source: Source, root: Descriptor, index: Index, platforms: Iterable[Platform]
) -> frozenset[Digest]:
    """The entries of an index that hold none of the platforms, and say nothing about one that does."""
    seen = {root.digest}
    found = [(image, entry) for entry in index.manifests for image in _images(source, [entry], seen)]
    images = [image for image, _ in found]
    chosen = {_pick(source, root, images, platform).digest for platform in platforms}
    # An image that is listed twice is kept twice, and so is a nested index that holds one.
    kept = {entry.digest for image, entry in found if image.digest in chosen}
    attested = {str(digest) for digest in kept | chosen}
    kept |= {entry.digest for entry in index.manifests if entry.annotations.get(_ATTESTED) in attested}
    return frozenset(entry.digest for entry in index.manifests) - kept


def _without(index: Index, left_out: frozenset[Digest]) -> bytes:
    """The index's own JSON less some entries; every field that ocitool does not know stays."""
    fields = strictjson.load_object(index.raw, "index")
    kept = zip(fields["manifests"], index.manifests, strict=True)
    fields["manifests"] = [raw for raw, entry in kept if entry.digest not in left_out]
    return strictjson.dumps(fields)


def _pick(source: Source, root: Descriptor, images: Iterable[Descriptor], wanted: Platform) -> Descriptor:
    for platform in candidates(wanted):
        for image in images:
            if image.platform and runs_on(image.platform, platform):
                return image
    # The last resort: an entry that does not say what it runs on. Its own configuration may.
    others = []
    for image in images:
        actual = image.platform or _own_platform(source, image)
        if image.platform is None and _suits(actual, wanted):
            return image
        others.append(f"{actual!s:.60}")
    raise NotFound(
        f"index {root.digest} has no manifest for {wanted}",
        hint=f"it has {_listed(others)}; choose one with --platform",
    )


def _own_platform(source: Source, image: Descriptor) -> Platform | None:
    """What an image's configuration says that it runs on; None for what has no such configuration."""
    manifest = read_manifest(source, image)
    if isinstance(manifest, Manifest) and manifest.config.media_type in mediatypes.CONFIGS:
        return read_config(source, manifest).platform
    return None


def _suits(actual: Platform | None, wanted: Platform) -> bool:
    return actual is None or any(runs_on(actual, platform) for platform in candidates(wanted))


def _images(
    source: Source, entries: Iterable[Descriptor], seen: set[Digest], depth: int = 2
) -> Iterator[Descriptor]:
    """The entries that could be run, in order; a nested index is unfolded where it stands first.

    `seen` are the indexes unfolded so far: without it, eight levels of an index that names the next one
    10,000 times would never come to an end.
    """
    for entry in entries:
        if entry.is_index and entry.digest not in seen:
            seen.add(entry.digest)
            if depth >= limits.INDEX_NESTING or len(seen) > limits.INDEX_ENTRIES:
                raise UnsafeContent(
                    f"index {entry.digest} is nested deeper than {limits.INDEX_NESTING} levels,"
                    f" or one of more than {limits.INDEX_ENTRIES}"
                )
            yield from _images(source, _index(source, entry).manifests, seen, depth + 1)
        elif entry.media_type in mediatypes.IMAGE_MANIFESTS and not (
            entry.platform and entry.platform.is_unknown
        ):
            yield entry


def _index(source: Source, desc: Descriptor) -> Index:
    return Index.parse(read_verified(source, desc), desc.media_type, f"index {desc.digest}")


def _listed(platforms: Iterable[str]) -> str:
    names = list(dict.fromkeys(platforms))
    if len(names) > _NAMES_SHOWN:
        names[_NAMES_SHOWN:] = [f"and {len(names) - _NAMES_SHOWN} more"]
    return ", ".join(names) or "no images"
