"""What differs between two images: layers, configuration, files. Nothing is unpacked to disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ocitool.unpack.image import any_documents
from ocitool.unpack.tree import Facts, tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.model import Descriptor, ImageConfig


@dataclass(frozen=True, slots=True)
class Change:
    """One file that differs.

    Attributes:
        how: what became of it on the way from the first image to the second.
        path: where it is, without a leading slash.
        fields: of a changed one, which of its facts differ (see `ocitool.unpack.tree.Facts`).
    """

    how: Literal["added", "removed", "changed"]
    path: bytes
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs.

    Attributes:
        shared: the diff IDs that both images begin with.
        removed_layers: the diff IDs that follow in the first image.
        added_layers: those that follow in the second.
        config: settings that differ, by the specification's key, as (first, second); None where not set.
        files: the files that differ, in the order of their paths.
    """

    shared: tuple[Digest, ...]
    removed_layers: tuple[Digest, ...]
    added_layers: tuple[Digest, ...]
    config: Mapping[str, tuple[Any, Any]]
    files: tuple[Change, ...]


def difference(
    first: tuple[Source, Descriptor], second: tuple[Source, Descriptor], *, times: bool = False
) -> Difference:
    """Compare two images.

    Args:
        first: an image's source and manifest.
        second: the other one's.
        times: whether a file of which only the time differs counts as changed.

    Raises:
        Unsupported: one of the two is no image.
        OciError: one can't be read.
    """
    (_, before), (_, after) = any_documents(*first), any_documents(*second)
    shared = 0
    for one, other in zip(before.diff_ids, after.diff_ids, strict=False):
        if one != other:
            break
        shared += 1
    same_files = shared == len(before.diff_ids) == len(after.diff_ids)
    return Difference(
        shared=before.diff_ids[:shared],
        removed_layers=before.diff_ids[shared:],
        added_layers=after.diff_ids[shared:],
        config=_settings(before, after),
        files=() if same_files else tuple(_files(first, second, times=times)),
    )


def _settings(before: ImageConfig, after: ImageConfig) -> dict[str, tuple[Any, Any]]:
    found = {
        key: (before.config.get(key), after.config.get(key))
        for key in sorted(before.config.keys() | after.config.keys())
        if before.config.get(key) != after.config.get(key)
    }
    if before.platform != after.platform:
        found["platform"] = (str(before.platform), str(after.platform))
    return found


def _files(
    first: tuple[Source, Descriptor], second: tuple[Source, Descriptor], *, times: bool
) -> Iterable[Change]:
    before, after = dict(tree(*first).files()), dict(tree(*second).files())
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            yield Change("removed", path)
        elif path not in before:
            yield Change("added", path)
        elif fields := _differing(before[path], after[path], times=times):
            yield Change("changed", path, fields)


def _differing(one: Facts, other: Facts, *, times: bool) -> tuple[str, ...]:
    return tuple(
        name
        for name, here, there in zip(Facts._fields, one, other, strict=True)
        if here != there and (times or name != "mtime")
    )
