"""Digest tags: names that other clients give to what belongs to a manifest.

cosign's signatures, attestations and SBOMs have the digest of their subject in their tag, `sha256-….sig`, and
no `subject`: only the tag says what they belong to. The index of referrers has such a tag as well, where a
registry has no API for it (distribution-spec, "Referrers Tag Schema").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ocitool.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_DIGEST_TAG: Final = re.compile(r"(sha256|sha512)-([a-f0-9]{64,128})(\.[a-z0-9]+)?")


def is_digest_tag(tag: str) -> bool:
    """Whether a tag is the name of what belongs to a manifest, and no image's own."""
    return _DIGEST_TAG.fullmatch(tag) is not None


def tag_of(name: str) -> str:
    """The tag in a layout's `repository:tag`; a registry's name for an image is all tag."""
    return name.rpartition(":")[2]


def subject_of(name: str) -> str:
    """What a digest tag, or a layout's `repository:tag` with one, belongs to; "" for an image's own name."""
    match = _DIGEST_TAG.fullmatch(tag_of(name))
    return f"{match[1]}:{match[2]}" if match else ""


def is_fallback_tag(tag: str) -> bool:
    """Whether a tag names an index of referrers, which whoever pushes those keeps by itself."""
    match = _DIGEST_TAG.fullmatch(tag)
    return match is not None and not match[3]


def repository_of(name: str) -> str:
    """The repository in a layout's `repository:tag`; "" where a name says none."""
    repository, _, tag = name.rpartition(":")
    return "" if is_digest(name) or "/" in tag else repository


def beside(name: str, tag: str) -> str:
    """What a digest tag is called where an image has a name: a layout's names say the repository, too."""
    repository = repository_of(name)
    return f"{repository}:{tag}" if repository else tag


def belonging(names: Iterable[str], subjects: Collection[str], name: str) -> list[str]:
    """The names, among all that a place has, of what belongs to an image and its manifests; sorted.

    Args:
        names: all of the place.
        subjects: the digests of the manifests.
        name: the image's own. Where that says its repository, another one's signatures are not meant.
    """
    repositories = {"", repository_of(name)}
    return sorted(
        found
        for found in names
        if subject_of(found) in subjects
        and not is_fallback_tag(tag_of(found))
        and (repositories == {""} or repository_of(found) in repositories)
    )
