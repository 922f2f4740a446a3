"""One repository of one registry: where it is, what to ask it, and its manifests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode

from ocitool import mediatypes, strictjson
from ocitool.digest import Digest
from ocitool.errors import (
    IntegrityError,
    InvalidContent,
    NotFound,
    OciError,
    RegistryError,
    Unreachable,
    Unsupported,
)
from ocitool.model import Descriptor, parse_manifest, sniff_media_type
from ocitool.reference import is_digest
from ocitool.registry.auth import scope
from ocitool.registry.calls import Call
from ocitool.registry.responses import LACKS_CONTENT
from ocitool.registry.text import printable
from ocitool.streams import VerifiedReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.registry.config import ClientConfig, Place
    from ocitool.registry.endpoint import Endpoint
    from ocitool.registry.responses import Answer
    from ocitool.registry.transport import Transport

T = TypeVar("T")

ACCEPT: Final = ", ".join([*sorted(mediatypes.MANIFESTS), "*/*;q=0.1"])
"""Without all of the four, registries turn what they have into what they think we want."""

# What registries say that don't keep the type, or don't know it.
_NO_TYPE: Final = frozenset(
    {"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"}
)
_REMEMBERED: Final = 16 << 20  # bytes of manifests
_LATE_BLOBS: Final = 4
"""How often a manifest is offered to a registry that does not know its blobs yet."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place where the repository's content may be: the registry itself, or a mirror of it."""

    endpoint: Endpoint
    repository: str
    mirror_of: str
    place: Place

    def path(self, *parts: str, **query: str) -> str:
        """The path of a request about the repository."""
        if self.mirror_of:
            # A mirror of several registries can tell by this which one is meant.
            query["ns"] = self.mirror_of
        path = "/".join(("", "v2", self.repository, *(quote(part, safe=":/") for part in parts)))
        return f"{path}?{urlencode(query)}" if query else path


class Repository:
    """A repository's sites and manifests. Safe to use from several threads.

    Attributes:
        name: registry and repository, as people write them.
        site: the registry itself.
        mirrors: where reading is tried before.
    """

    def __init__(
        self, name: str, site: Site, mirrors: tuple[Site, ...], transport: Transport, config: ClientConfig
    ) -> None:
        self.name = name
        self.site = site
        self.mirrors = mirrors
        self.transport = transport
        self.config = config
        self._manifests = _Manifests()
        self._down: set[Site] = set()

    def call(self, site: Site, method: str, path: tuple[str, ...], what: str, **fields: Any) -> Call:
        """A call about the repository.

        Args:
            site: where.
            method: of HTTP.
            path: what follows the repository's name in the path.
            what: what is wanted, for errors.
            fields: those of `Call`; besides, `actions` and `extra` make its scopes, `query` its query.
        """
        actions = fields.pop("actions", ("pull",))
        extra = fields.pop("extra", ())
        return Call(
            method=method,
            target=site.path(*path, **fields.pop("query", {})),
            what=what,
            repository=site.repository,
            scopes=(scope(site.repository, *actions), *extra),
            **fields,
        )

    def anywhere(self, ref: str, action: Callable[[Site], T]) -> T:
        """Do something at the first place that can: the mirrors in order, then the registry itself.

        A mirror that can't be reached is not tried again: every time would cost all the tries of a call.
        """
        for site in self.mirrors:
            if site in self._down or not site.place.serves(ref):
                continue
            try:
                return action(site)
            except OciError as error:
                if isinstance(error, Unreachable):
                    self._down.add(site)
                self.transport.note(f"{self.name}: mirror {site.endpoint.name} is of no use: {error.message}")
        return action(self.site)

    def is_manifest(self, desc: Descriptor) -> bool:
        """Whether content is among the manifests here; one of an unknown type is, if it was read as one."""
        return desc.is_manifest or desc.digest in self._manifests

    def manifest(self, desc: Descriptor) -> bytes:
        """A manifest's bytes, from memory where they have just been read or pushed.

        Raises:
            NotFound: it is not there.
            IntegrityError: it is not what the descriptor names; `read` knows of no size.
        """
        content = self._manifests.get(desc.digest)
        if content is None:
            ref = str(desc.digest)
            content = self.anywhere(ref, lambda site: self.read(site, ref)[1])
        return VerifiedReader(BytesIO(content), desc.digest, desc.size).read()

    def ask(self, site: Site, tag: str) -> Descriptor | None:
        """What a tag names, by HEAD; None where the registry does not say enough."""
        what = f"manifest {tag} of {self.name}"
        expect = frozenset({200, 400, 405})
        call = self.call(site, "HEAD", ("manifests", tag), what, headers={"Accept": ACCEPT}, expect=expect)
        answer = self.transport.request(site.endpoint, call)
        size = answer.headers.get("content-length", "")
        if answer.status != 200 or answer.media_type not in mediatypes.MANIFESTS or not size.isdecimal():
            return None
        try:
            digest = Digest.parse(answer.headers.get("docker-content-digest", ""))
        except OciError:
            return None
        return Descriptor(answer.media_type, digest, int(size))

    def read(self, site: Site, ref: str) -> tuple[Descriptor, bytes]:
        """Read a manifest by tag or digest.

        Raises:
            NotFound: it is not there.
            IntegrityError: a digest was answered with other content.
        """
        what = f"manifest {ref} of {self.name}"
        call = self.call(
            site,
            "GET",
            ("manifests", ref),
            what,
            headers={"Accept": ACCEPT},
            limit=self.config.manifest_bytes,
        )
        try:
            answer = self.transport.request(site.endpoint, call)
        except NotFound as error:
            if not is_digest(ref):
                error.hint = f"what there is: ocitool tags {self.name}"
            raise
        wanted = Digest.parse(ref) if is_digest(ref) else None
        digest = Digest.of(answer.body, wanted.algorithm if wanted else "sha256")
        # "If the <reference> part of a manifest request is a digest, clients SHOULD verify the returned
        # manifest matches this digest."
        if wanted and digest != wanted:
            raise IntegrityError(
                f"{site.endpoint.name} answered {ref} of {self.name} with {digest}",
                expected=ref,
                actual=str(digest),
            )
        self._doubt(answer, digest, what)
        desc = Descriptor(_type_of(answer, what), digest, len(answer.body))
        self._manifests.keep(digest, answer.body)
        return desc, answer.body

    def _doubt(self, answer: Answer, digest: Digest, what: str) -> None:
        """Content is called by the digest of its bytes, whatever a header says."""
        said = answer.headers.get("docker-content-digest", str(digest))
        if said != str(digest) and said.startswith(f"{digest.algorithm}:"):
            self.transport.note(
                f"{what}: Docker-Content-Digest says {printable(said, 80)}, the bytes are {digest}"
            )

    def put(self, desc: Descriptor, content: bytes, ref: str) -> Answer:
        """Write a manifest under a tag or its digest.

        Raises:
            RegistryError: the registry refuses.
        """
        what = f"manifest {ref} of {self.name}"
        call = self.call(
            self.site,
            "PUT",
            ("manifests", ref),
            what,
            actions=("pull", "push"),
            headers={"Content-Type": desc.media_type},
            body=content,
            expect=frozenset({200, 201, 202, 204}),
        )
        for attempt in range(1, _LATE_BLOBS + 1):
            try:
                answer = self.transport.request(self.site.endpoint, call)
            except RegistryError as error:
                # Replicas of a registry may not know yet what another one has just stored.
                if LACKS_CONTENT not in error.codes or attempt == _LATE_BLOBS:
                    error.hint = error.hint or _elsewhere(desc, content)
                    raise
                self.transport.back_off(what, error, attempt)
            else:
                self._doubt(answer, desc.digest, what)
                return answer
        raise AssertionError  # pragma: no cover - the last attempt returned or raised

    def remember(self, digest: Digest, content: bytes) -> None:
        """A manifest has been pushed."""
        self._manifests.keep(digest, content)

    def forget(self, digest: Digest) -> None:
        """A manifest has been deleted."""
        self._manifests.forget(digest)


def _type_of(answer: Answer, what: str) -> str:
    """What a manifest is: what the registry says, else what the document says itself."""
    if answer.media_type in mediatypes.DOCKER_SCHEMA1:
        raise Unsupported(f"{what} has the legacy format schema 1, which says nothing that can be verified")
    if answer.media_type in _NO_TYPE:
        return sniff_media_type(answer.body, what)
    if answer.media_type not in mediatypes.MANIFESTS:
        _require_document(answer, what)
    return answer.media_type


def _require_document(answer: Answer, what: str) -> None:
    """Make sure of a type that we do not know that it is a manifest's.

    distribution-spec, "Definitions": "**Manifest**: a JSON document uploaded via the manifests endpoint."
    """
    try:
        strictjson.load_object(answer.body, what)
    except InvalidContent as error:
        raise RegistryError(
            f"{what}: GET {answer.where} answered with {printable(answer.media_type, 80)}, and no manifest",
            hint="has a proxy, or a page that wants a login, answered in the registry's place?",
            method="GET",
            url=answer.where,
            status=answer.status,
        ) from error


def _elsewhere(desc: Descriptor, content: bytes) -> str:
    """What to do where a registry refuses an image for layers that are not pushed."""
    children = parse_manifest(content, desc).children if desc.is_manifest else ()
    if not any(mediatypes.is_nondistributable(child.media_type) for child in children):
        return ""
    return (
        "it has layers that may not be distributed, and are left where their `urls` say: the registry's"
        " administrator has to allow those, in docker-registry by validation.manifests.urls.allow"
    )


class _Manifests:
    """The bytes of manifests that were read or pushed lately, and the digests of all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contents: OrderedDict[Digest, bytes] = OrderedDict()
        self._digests: set[Digest] = set()
        self._bytes = 0

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._digests

    def get(self, digest: Digest) -> bytes | None:
        with self._lock:
            return self._contents.get(digest)

    def keep(self, digest: Digest, content: bytes) -> None:
        with self._lock:
            self._digests.add(digest)
            if digest not in self._contents:
                self._contents[digest] = content
                self._bytes += len(content)
            while self._bytes > _REMEMBERED:
                self._bytes -= len(self._contents.popitem(last=False)[1])

    def forget(self, digest: Digest) -> None:
        with self._lock:
            self._digests.discard(digest)
            self._bytes -= len(self._contents.pop(digest, b""))
