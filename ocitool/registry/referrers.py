"""The referrers tag schema: how referrers are kept where a registry has no API for them.

distribution-spec, "Unavailable Referrers API": an index under the tag `<alg>-<hex>` lists them, and whoever
pushes or deletes one keeps it right.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ocitool import limits, mediatypes, strictjson
from ocitool.errors import IntegrityError, InvalidContent, NotFound, RegistryError, UnsafeContent
from ocitool.model import Descriptor, Index, Manifest, parse_manifest
from ocitool.registry import listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ocitool.digest import Digest
    from ocitool.registry.repository import Repository


def tag_of(subject: Digest) -> str:
    """The tag of a manifest's referrers."""
    # "<ref>: the digest from the subject field (limit of 64 characters)"
    return f"{subject.algorithm}-{subject.hex[:64]}"


def referrer_of(desc: Descriptor, manifest: Manifest | Index) -> Descriptor:
    """How a list of referrers names a manifest.

    "All annotations from the pushed manifest MUST be copied to this descriptor."
    """
    return Descriptor(
        desc.media_type,
        desc.digest,
        desc.size,
        annotations=manifest.annotations,
        artifact_type=manifest.kind,
    )


def listed(raw: bytes, what: str) -> tuple[Descriptor, ...]:
    """The referrers in an index.

    Raises:
        InvalidContent: it is no index.
    """
    return Index.parse(raw, mediatypes.OCI_INDEX, what).manifests


def index_of(referrers: Iterable[Descriptor]) -> bytes:
    """The index that lists referrers."""
    return strictjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_INDEX,
            "manifests": [referrer.to_json() for referrer in referrers],
        }
    )


def refers_to(manifest: Manifest | Index, subject: Digest) -> bool:
    """Whether a manifest has this subject."""
    return manifest.subject is not None and manifest.subject.digest == subject


def is_index(raw: bytes) -> bool:
    """Whether some bytes are an index, whatever they were announced as."""
    try:
        listed(raw, "referrers")
    except InvalidContent:
        return False
    return True


class ReferrerLists:
    """Who refers to what in one repository, by the API or by the tag schema."""

    def __init__(self, repository: Repository) -> None:
        self._has_no_api = False  # as the registry has said; it is not asked again
        self._repository = repository
        self._amending = threading.Lock()

    def find(self, subject: Descriptor, artifact_type: str) -> list[Descriptor]:
        """What refers to a manifest.

        "A client querying the referrers API and receiving a 404 Not Found MUST fallback to using an image
        index pushed to a tag described by the referrers tag schema."
        """
        found = self.by_api(subject, artifact_type)
        if found is None:
            found = self._by_tag(subject)
        # "If filtering is requested and applied, the response MUST include a header": many don't filter.
        return [referrer for referrer in found if artifact_type in {"", referrer.artifact_type}]

    def add(self, desc: Descriptor, manifest: Manifest | Index) -> None:
        """A manifest has been pushed to a registry that keeps no lists: keep it in its subject's.

        "Verify the descriptor for the manifest is not already in the referrers list (duplicate entries
        SHOULD NOT be created)."

        Raises:
            RegistryError: something else has the tag of the list.
        """
        if manifest.subject:
            referrer = referrer_of(desc, manifest)
            self._amend(
                manifest.subject.digest, lambda found: found if referrer in found else [*found, referrer]
            )

    def remove(self, desc: Descriptor, manifest: Manifest | Index) -> None:
        """A manifest has been deleted: take it out of its subject's list."""
        if manifest.subject and self.by_api(manifest.subject, "") is None:
            self._amend(
                manifest.subject.digest, lambda found: [item for item in found if item.digest != desc.digest]
            )

    def by_api(self, desc: Descriptor, artifact_type: str) -> list[Descriptor] | None:
        """What the referrers API says; None where there is no such thing."""
        if self._has_no_api:
            return None
        query = {"artifactType": artifact_type} if artifact_type else {}
        what = f"referrers of {desc.digest} in {self._repository.name}"
        call = self._repository.call(
            self._repository.site,
            "GET",
            ("referrers", str(desc.digest)),
            what,
            query=query,
            headers={"Accept": mediatypes.OCI_INDEX},
            # Registries without it answer in every way, some with a web page.
            expect=frozenset(range(200, 500)) - {408, 429},
            limit=self._repository.config.manifest_bytes,
        )
        found: list[Descriptor] = []
        for answer in listing.pages(self._repository.transport, self._repository.site.endpoint, call):
            if answer.status != 200 or answer.media_type != mediatypes.OCI_INDEX:
                # "If the registry supports the referrers API, the registry MUST NOT return a `404 Not Found`
                # to a referrers API requests."
                self._has_no_api = answer.status == 404
                return None
            found += listed(answer.body, what)
            if len(found) > limits.INDEX_ENTRIES:
                raise UnsafeContent(f"{what}: there are more than {limits.INDEX_ENTRIES}")
        return found

    def _by_tag(self, desc: Descriptor) -> list[Descriptor]:
        """What the tag schema lists and really refers to the manifest."""
        return [item for item in self._listed(desc.digest) or () if self._refers(item, desc.digest)]

    def _refers(self, referrer: Descriptor, subject: Digest) -> bool:
        if not referrer.is_manifest or referrer.digest == subject:
            return False
        try:
            return refers_to(parse_manifest(self._repository.manifest(referrer), referrer), subject)
        except (NotFound, InvalidContent, IntegrityError) as error:
            self._repository.transport.note(
                f"{self._repository.name}: a referrer that {tag_of(subject)} lists is left out:"
                f" {error.message}"
            )
            return False

    def _listed(self, subject: Digest) -> list[Descriptor] | None:
        """The list under the tag of a subject; None where something else has the tag."""
        try:
            desc, raw = self._repository.read(self._repository.site, tag_of(subject))
        except NotFound:
            return []
        # GitLab answers a tag of this form with the subject itself.
        if desc.digest == subject or desc.media_type != mediatypes.OCI_INDEX or not is_index(raw):
            return None
        return list(listed(raw, f"referrers of {subject}"))

    def _amend(self, subject: Digest, amend: Callable[[list[Descriptor]], list[Descriptor]]) -> None:
        """Write the list under the tag of a subject anew."""
        with self._amending:
            found = self._listed(subject)
            if found is None:
                raise RegistryError(
                    f"the tag {tag_of(subject)} of {self._repository.name} is no list of referrers",
                    hint="the manifest has been pushed, but nobody will find it as a referrer",
                )
            amended = amend(found)
            if amended != found:
                raw = index_of(amended)
                self._repository.put(Descriptor.of(mediatypes.OCI_INDEX, raw), raw, tag_of(subject))
