"""Whether an image is signed by the keys that it should be; everything unexpected is a failure.

A verified image is a digest, and no name: whoever goes on does so from the descriptor that was verified. A
manifest below it is reached by its digest in the verified index, and needs no signature of its own.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from ocitool import limits
from ocitool.content import Referrers, Source, read_manifest, read_verified
from ocitool.digesttags import beside
from ocitool.errors import IntegrityError, InvalidContent, NotFound
from ocitool.trust import dsse, simplesigning
from ocitool.trust.claims import Policy, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocitool.model import Descriptor
    from ocitool.trust.claims import Candidate

    Kept = tuple[Descriptor, Callable[[bytes], Candidate]]

_MOST_TOLD: Final = 5
_REFUSED: Final = (NotFound, InvalidContent, IntegrityError)
_ARTIFACT_TYPES: Final = {simplesigning.ARTIFACT_TYPE, dsse.MEDIA_TYPE}


def verify(source: Source, root: Descriptor, policy: Policy, *, name: str = "") -> list[Signature]:
    """Make sure that an image is signed as a policy wants it.

    What is no such signature counts for nothing, whatever is wrong with it: anybody who may push could put it
    beside the others.

    Args:
        source: where the image and its signatures are.
        root: the image, or an index, resolved already.
        policy: whose signatures it needs.
        name: its name in `source`, where that is a layout whose names say the repository.

    Returns:
        A signature by each key that the policy needs; by one of them where one is enough.

    Raises:
        IntegrityError: it is not signed so.
        OciError: whatever the source raises: an image whose signatures can't be asked for is not verified.
    """
    wanted = {key.id: key for key in policy.keys}
    accepted: dict[str, Signature] = {}
    objections: list[str] = []
    kept = islice(_kept(source, root, name, objections), limits.SIGNATURES)
    for desc, reader in kept:
        try:
            signature = _accepted(source, root, policy, desc, reader)
        except _REFUSED as error:
            objections.append(error.message)
            continue
        accepted.setdefault(signature.key.id, signature)
        if not policy.every or len(accepted) == len(wanted):
            return list(accepted.values())
    missing = [key.name for key in wanted.values() if key.id not in accepted]
    raise _refusal(root, missing, objections)


def _accepted(
    source: Source, root: Descriptor, policy: Policy, desc: Descriptor, reader: Callable[[bytes], Candidate]
) -> Signature:
    candidate = reader(read_verified(source, desc, limit=limits.SIGNATURE_BYTES))
    for key in policy.keys:
        if key.verifies(candidate.signature, candidate.document):
            claims = candidate.read()
            if objection := policy.objection(claims, root.digest):
                raise IntegrityError(f"{desc.digest} is a signature by {key.name}, but {objection}")
            return Signature(key, candidate.media_type, claims)
    raise IntegrityError(f"{desc.digest} is a signature by another key, or of other bytes")


def _kept(source: Source, root: Descriptor, name: str, objections: list[str]) -> Iterator[Kept]:
    """All that is kept as a signature of a manifest: under its tag, and among its referrers."""
    tag = simplesigning.tag_of(root.digest)
    for named in dict.fromkeys((beside(name, tag), tag)):
        try:
            found = source.resolve(named)
        except NotFound:
            continue
        yield from _layers(source, found, objections)
    if isinstance(source, Referrers):
        referrers = [item for item in source.referrers(root) if item.artifact_type in _ARTIFACT_TYPES]
        for referrer in referrers[: limits.SIGNATURES]:
            yield from _layers(source, referrer, objections)


def _layers(source: Source, desc: Descriptor, objections: list[str]) -> Iterator[Kept]:
    try:
        children = read_manifest(source, desc).children
    except _REFUSED as error:
        objections.append(error.message)
        return
    for child in children:
        if child.media_type == simplesigning.MEDIA_TYPE:
            yield child, partial(simplesigning.candidate_of, child)
        elif child.media_type == dsse.MEDIA_TYPE:
            yield child, partial(dsse.candidate_of, what=f"bundle {child.digest}")


def _refusal(root: Descriptor, missing: list[str], objections: list[str]) -> IntegrityError:
    if not missing:
        return IntegrityError(f"{root.digest} can't be verified without a key")
    error = IntegrityError(
        f"{root.digest} is not signed by {' and '.join(missing)}",
        hint="" if objections else "there is no signature of it; `copy --referrers` brings signatures along",
    )
    for objection in objections[:_MOST_TOLD]:
        error.add_note(objection)
    if len(objections) > _MOST_TOLD:
        error.add_note(f"and {len(objections) - _MOST_TOLD} more")
    return error
