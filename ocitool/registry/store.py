"""A registry's repository as a store."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Final

from ocitool.digest import Digest
from ocitool.errors import IntegrityError, NotFound, RegistryError, Unsupported
from ocitool.model import Descriptor, parse_manifest
from ocitool.reference import DOCKER_HUB, check_tag, is_digest
from ocitool.registry import headers, listing
from ocitool.registry.auth import scope
from ocitool.registry.download import Download
from ocitool.registry.referrers import ReferrerLists
from ocitool.registry.repository import ACCEPT, Repository, Site
from ocitool.registry.responses import REDIRECTS
from ocitool.registry.upload import Session, Upload, session_of
from ocitool.streams import Reader, VerifiedReader

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

    from ocitool.content import Source

_CHUNK_AFTER_FAILURE: Final = 16 << 20
_DELETED: Final = frozenset({200, 202, 204})
_SOURCE_HINT: Final = "containerd.io/distribution.source."
"""Annotation (with the registry's name behind it) that lists repositories which have a blob."""


class RegistryStore:
    """One repository of one registry.

    Implements Store, Mounter, Deleter, Referrers, Lister, Inquirer, BlobFinder and Publisher. What is read
    may come from a mirror; what is written goes to the registry itself. Made by `Client.repository`.

    Attributes:
        name: registry and repository, as people write them.
    """

    def __init__(self, repository: Repository, ranges: threading.Lock) -> None:
        self.name = repository.name
        self._repo = repository
        self._referrers = ReferrerLists(repository)
        self._ranges = ranges
        self._sessions: dict[Digest, Session] = {}
        self._broken: set[Digest] = set()
        self._given: set[tuple[Site, Digest]] = set()

    # Reading

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`.

        What a tag names costs one request, and its bytes are kept for the `fetch` that follows.

        Raises:
            NotFound: nothing has that name.
            IntegrityError: the registry answers a digest with other content.
            RegistryError: it does not answer, or not as it should.
        """
        if is_digest(ref):
            Digest.parse(ref)
        else:
            check_tag(ref)
        return self._repo.anywhere(ref, lambda site: self._resolved(site, ref))

    def _resolved(self, site: Site, ref: str) -> Descriptor:
        # Docker Hub counts what is read, but not questions.
        asked = None
        if site.endpoint.name == DOCKER_HUB and not is_digest(ref):
            asked = self._repo.ask(site, ref)
        return asked or self._repo.read(site, ref)[0]

    def ask(self, ref: str, /) -> Descriptor:
        """See `Inquirer`: by HEAD, unless the registry does not say enough by that.

        Raises:
            NotFound: nothing has that name.
            RegistryError: the registry does not answer, or not as it should.
        """
        if is_digest(ref):
            Digest.parse(ref)
        else:
            check_tag(ref)
        asked = self._repo.anywhere(ref, lambda site: self._repo.ask(site, ref))
        return asked or self.resolve(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        """See `Source`.

        A blob that breaks off is resumed, and one that is slow comes over several connections; the reader
        shows nothing of either.

        Raises:
            NotFound: the repository does not have it.
            RegistryError: the registry does not answer, or not as it should.
        """
        return (
            self._fetched_manifest(desc, offset)
            if self._repo.is_manifest(desc)
            else self._fetched_blob(desc, offset)
        )

    @contextmanager
    def _fetched_manifest(self, desc: Descriptor, offset: int) -> Iterator[Reader]:
        yield BytesIO(self._repo.manifest(desc)[offset:])

    @contextmanager
    def _fetched_blob(self, desc: Descriptor, offset: int) -> Iterator[Reader]:
        def start(site: Site) -> Download:
            if site.mirror_of and (site, desc.digest) in self._given:
                # It was asked for before, so what the mirror gave was of no use.
                raise NotFound(f"{site.endpoint.name} has given {desc.digest} before")
            self._given.add((site, desc.digest))
            what = f"blob {desc.digest} of {self.name}"
            call = self._repo.call(site, "GET", ("blobs", str(desc.digest)), what)
            return Download(
                self._repo.transport,
                site.endpoint,
                call,
                desc,
                offset,
                self._repo.config.ranges,
                self._ranges,
                self._repo.config.retries,
            ).start()

        with closing(self._repo.anywhere(str(desc.digest), start)) as download:
            try:
                yield download
            except IntegrityError as error:
                # Raised by whoever verifies the bytes, who does not know where they are from.
                error.add_note(f"the bytes came from {download.origin}")
                raise

    def exists(self, desc: Descriptor, /) -> bool:
        """See `Store`."""
        kind = "manifests" if self._repo.is_manifest(desc) else "blobs"
        call = self._repo.call(
            self._repo.site,
            "HEAD",
            (kind, str(desc.digest)),
            f"{kind[:-1]} {desc.digest} of {self.name}",
            headers={"Accept": ACCEPT} if kind == "manifests" else {},
            # Some registries never let anyone ask (ECR public): then the answer is found out by doing.
            expect=frozenset({200, 401, 403, 404, 405}) | REDIRECTS,
        )
        answer = self._repo.transport.request(self._repo.site.endpoint, call)
        if answer.status == 405 and kind == "manifests":
            return self._present(desc)
        length = answer.headers.get("content-length", "0")
        return answer.status in REDIRECTS or (answer.status == 200 and length in {"0", str(desc.size)})

    def _present(self, desc: Descriptor) -> bool:
        try:
            self._repo.read(self._repo.site, str(desc.digest))
        except (NotFound, IntegrityError):
            return False
        return True

    def find_blob(self, digest: Digest, /) -> Descriptor:
        """See `BlobFinder`.

        Raises:
            RegistryError: the registry does not answer, or not as it should.
        """
        what = f"blob {digest} of {self.name}"
        path = ("blobs", str(digest))
        transport, site = self._repo.transport, self._repo.site
        call = self._repo.call(site, "HEAD", path, what, expect=frozenset({200}) | REDIRECTS)
        answer = transport.request(site.endpoint, call)
        length = answer.headers.get("content-length", "")
        if answer.status in REDIRECTS:
            # A storage's URL is signed for GET. Its first byte comes with the size of the whole.
            call = self._repo.call(
                site, "GET", path, what, headers={"Range": "bytes=0-0"}, expect=frozenset({200, 206})
            )
            with transport.open(site.endpoint, call) as live:
                place = headers.content_range(live.headers.all("content-range"))
                length = str(place.total if place else live.headers.get("content-length", ""))
        if not length.isdecimal():
            raise RegistryError(f"{what}: {site.endpoint.name} does not say how large it is")
        return Descriptor("application/octet-stream", digest, int(length))

    def tags(self) -> Iterable[str]:
        """See `Lister`.

        Raises:
            NotFound: there is no such repository.
            RegistryError: the registry does not answer, or not as it should.
        """
        call = self._repo.call(
            self._repo.site,
            "GET",
            ("tags", "list"),
            f"list of tags of {self.name}",
            query={"n": str(listing.PAGE)},
        )
        return sorted(set(listing.names(self._repo.transport, self._repo.site.endpoint, call, "tags")))

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        """See `Referrers`.

        Raises:
            RegistryError: the registry does not answer, or not as it should.
        """
        return self._referrers.find(desc, artifact_type)

    def referrers_by_api(self, desc: Descriptor, /) -> list[Descriptor] | None:
        """What refers to a manifest, as the registry's API says; None where it has none.

        Once that is known from its 404, no request is sent.

        Raises:
            RegistryError: the registry does not answer, or not as it should.
        """
        return self._referrers.by_api(desc, "")

    # Writing

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """See `Store`.

        Raises:
            IntegrityError: the stream is not what the descriptor names; nothing has been added.
            RegistryError: the registry refuses; `temporary` where the whole push is worth another try.
        """
        if self._repo.is_manifest(desc):
            self._push_manifest(desc, stream, str(desc.digest))
        else:
            self._push_blob(desc, stream)

    def publish(self, desc: Descriptor, stream: Reader, ref: str, /) -> None:
        """See `Publisher`."""
        check_tag(ref)
        self._push_manifest(desc, stream, ref)

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        """See `Store`."""
        if is_digest(ref):
            if not self.exists(desc):
                raise NotFound(f"{desc.digest} is not in {self.name}, so it can't be kept there")
            return
        check_tag(ref)
        self._repo.put(desc, self._repo.manifest(desc), ref)

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        """See `Mounter`.

        Tried are the repository that the copy comes from, what the descriptor's annotations name, and the
        repositories of `ClientConfig.mount_from`.
        """
        return any(self._mounted(desc, repository) for repository in self._neighbours(desc, source))

    def untag(self, ref: str, /) -> None:
        """See `Deleter`.

        Raises:
            Unsupported: the registry does not remove tags (only the manifest, and with it all its tags).
        """
        check_tag(ref)
        self._delete("manifests", ref, f"tag {ref} of {self.name}")

    def delete(self, desc: Descriptor, /) -> None:
        """See `Deleter`.

        Raises:
            Unsupported: the registry does not remove anything.
        """
        if not self._repo.is_manifest(desc):
            self._delete("blobs", str(desc.digest), f"blob {desc.digest} of {self.name}")
            return
        manifest = parse_manifest(self._repo.manifest(desc), desc) if desc.is_manifest else None
        self._delete("manifests", str(desc.digest), f"manifest {desc.digest} of {self.name}")
        self._repo.forget(desc.digest)
        if manifest:
            self._referrers.remove(desc, manifest)

    # How

    def _push_manifest(self, desc: Descriptor, stream: Reader, ref: str) -> None:
        content = VerifiedReader(stream, desc.digest, desc.size).read()
        answer = self._repo.put(desc, content, ref)
        self._repo.remember(desc.digest, content)
        # Only this header says that a registry keeps referrers; that it has the API does not.
        if desc.is_manifest and "oci-subject" not in answer.headers:
            self._referrers.add(desc, parse_manifest(content, desc))

    def _push_blob(self, desc: Descriptor, stream: Reader) -> None:
        what = f"upload of blob {desc.digest} to {self.name}"
        session = self._sessions.pop(desc.digest, None) or self._begin(what)
        chunk_size = self._repo.config.chunk_size
        if desc.digest in self._broken:
            self._broken.discard(desc.digest)
            chunk_size = chunk_size or _CHUNK_AFTER_FAILURE
        else:
            self._broken.add(desc.digest)
        template = self._repo.call(self._repo.site, "PUT", (), what, actions=("pull", "push"))
        endpoint = self._repo.site.endpoint
        upload = Upload(
            self._repo.transport, endpoint, template, desc, stream, self.exists, self._repo.config.retries
        )
        try:
            upload.run(session, chunk_size)
        except RegistryError as error:
            # "413 Payload Too Large" is about the request: in chunks the blob may pass.
            error.temporary = error.temporary or (error.status == 413 and not chunk_size)
            raise
        self._broken.discard(desc.digest)

    def _begin(self, what: str) -> Session:
        call = self._repo.call(
            self._repo.site,
            "POST",
            ("blobs", "uploads", ""),
            what,
            actions=("pull", "push"),
            body=b"",
            expect=frozenset({202}),
        )
        return session_of(
            self._repo.transport.request(self._repo.site.endpoint, call), self._repo.site.endpoint
        )

    def _neighbours(self, desc: Descriptor, source: Source) -> Iterable[str]:
        """Repositories of this registry that may have a blob."""
        found = []
        if isinstance(source, RegistryStore) and source._repo.site.endpoint is self._repo.site.endpoint:  # noqa: SLF001 - ours
            found.append(source._repo.site.repository)  # noqa: SLF001 - as above
        hint = desc.annotations.get(_SOURCE_HINT + self._repo.site.endpoint.name, "")
        found += [name for name in hint.split(",") if name]
        found += self._repo.config.mount_from
        return [name for name in dict.fromkeys(found) if name != self._repo.site.repository]

    def _mounted(self, desc: Descriptor, repository: str) -> bool:
        call = self._repo.call(
            self._repo.site,
            "POST",
            ("blobs", "uploads", ""),
            f"mount of blob {desc.digest} into {self.name}",
            actions=("pull", "push"),
            extra=(scope(repository, "pull"),),
            query={"mount": str(desc.digest), "from": repository},
            body=b"",
            # Denied, unknown there, not offered, or broken: whatever it is, the blob is uploaded instead.
            expect=frozenset(range(200, 600)),
        )
        try:
            answer = self._repo.transport.request(self._repo.site.endpoint, call)
        except RegistryError:
            return False
        if answer.status != 202:
            return answer.status == 201
        # "This indicates that the upload session has begun and that the client MAY proceed with the upload."
        self._sessions[desc.digest] = session_of(answer, self._repo.site.endpoint)
        return False

    def _delete(self, kind: str, ref: str, what: str) -> None:
        call = self._repo.call(
            self._repo.site,
            "DELETE",
            (kind, ref),
            what,
            actions=("delete", "pull"),
            expect=_DELETED | {400, 404, 405},
        )
        answer = self._repo.transport.request(self._repo.site.endpoint, call)
        if answer.status in _DELETED or (answer.status == 404 and answer.repeated):
            return
        if answer.status in {400, 405}:
            raise Unsupported(
                f"{self._repo.site.endpoint.name} does not delete {what} ({answer.status})",
                hint="its administrator has to allow it"
                + ("" if is_digest(ref) else "; maybe it deletes images, with all their names: --digest"),
            )
        raise NotFound(f"{what} is not there")
