"""Content discovery: tags, referrers and the catalogue (distribution-spec, "Content Discovery")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from ocitool import mediatypes
from ocitool.content import Lister, Referrers, Source, read_manifest
from ocitool.digest import Digest
from ocitool.errors import NotFound, OciError
from ocitool.model import Descriptor, Index
from ocitool.serve.messages import Refused, Request, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocitool.serve.routes import Target
    from ocitool.serve.service import Service

_REFERRERS_PER_PAGE: Final = 1000


async def list_tags(service: Service, request: Request, target: Target) -> Response:
    """The tags of a repository."""
    # "If the list is not empty, the tags MUST be in lexical order (i.e. case-insensitive alphanumeric
    # order)."
    tags = await service.read(
        target.name, lambda source: _sorted(source.tags() if isinstance(source, Lister) else ())
    )
    page, headers = _page(tags, request)
    return json_response({"name": target.name, "tags": page}, headers=headers)


async def list_repositories(service: Service, request: Request, _: Target) -> Response:
    """The repositories; not in the specification, but where clients look for them."""
    page, headers = _page(await service.run(lambda: _sorted(service.repositories.names())), request)
    return json_response({"repositories": page}, headers=headers)


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=_lexical)


def _lexical(name: str) -> tuple[str, str]:
    return name.lower(), name


def _page(names: list[str], request: Request) -> tuple[list[str], dict[str, str]]:
    """The part of a list that `n` and `last` ask for, and the link to what follows."""
    # "`<tagname>` will not be included in the results, but up to `<int>` tags after `<tagname>` will be
    # returned."
    last = request.query.get("last")
    left = names if last is None else [name for name in names if _lexical(name) > _lexical(last)]
    wanted = request.query.get("n")
    if wanted is None:
        return left, {}
    if not wanted.isdecimal() or len(wanted) > 9:
        raise Refused(400, "UNSUPPORTED", f"n is {wanted!r:.20}, which is not a number of results")
    page = left[: int(wanted)]
    # "When `n` is zero, this endpoint MUST return an empty list, and MUST NOT include a `Link` header."
    return page, _link(request, n=wanted, last=page[-1]) if page and len(page) < len(left) else {}


def _link(request: Request, **query: str) -> dict[str, str]:
    return {"link": f'<{quote(request.path)}?{urlencode(query)}>; rel="next"'}


async def list_referrers(service: Service, request: Request, target: Target) -> Response:
    """The manifests that have a given one as their subject."""
    # "If the request is invalid, such as a `<digest>` with an invalid syntax, a `400 Bad Request` MUST be
    # returned."
    digest = Digest.parse(target.reference)
    wanted = request.query.get("artifactType", "")
    # "If the registry supports the referrers API, the registry MUST NOT return a `404 Not Found` to a
    # referrers API requests." So a repository that is not there has no referrers.
    source = await service.run(lambda: service.repositories.open(target.name))
    found = await service.run(lambda: referrers(source, digest, wanted)) if source else []
    headers = {}
    if wanted:
        # "If filtering is requested and applied, the response MUST include a header `OCI-Filters-Applied:
        # artifactType`".
        headers["oci-filters-applied"] = "artifactType"
    last = request.query.get("last", "")
    left = [desc for desc in found if str(desc.digest) > last]
    page = left[:_REFERRERS_PER_PAGE]
    if len(page) < len(left):
        # "A `Link` header MUST be included in the response when the descriptor list cannot be returned in a
        # single manifest."
        query = {"artifactType": wanted} if wanted else {}
        headers |= _link(request, **query, last=str(page[-1].digest))
    index = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [desc.to_json() for desc in page],
    }
    return json_response(index, media_type=mediatypes.OCI_INDEX, headers=headers)


def referrers(source: Source, subject: Digest, artifact_type: str) -> list[Descriptor]:
    """What refers to a manifest, whether the store knows of it or a client's tag says so; by digest."""
    found = {desc.digest: desc for desc in _tagged_referrers(source, subject)}
    if isinstance(source, Referrers):
        # Nothing but the digest matters: the subject need not be here.
        unknown = Descriptor(mediatypes.OCI_MANIFEST, subject, 0)
        found |= {desc.digest: desc for desc in source.referrers(unknown)}
    wanted = [desc for desc in found.values() if artifact_type in {"", desc.artifact_type}]
    return sorted(wanted, key=lambda desc: str(desc.digest))


def _tagged_referrers(source: Source, subject: Digest) -> Iterator[Descriptor]:
    """The referrers of the tag schema.

    "Registries MUST include preexisting image manifests that are listed in an image index tagged with the
    referrers tag schema and have a valid `subject` field in the referrers API response."
    """
    try:
        listed = source.resolve(f"{subject.algorithm}-{subject.hex[:64]}")
    except NotFound:
        return
    index = read_manifest(source, listed) if listed.is_index else None
    for entry in index.manifests if isinstance(index, Index) else ():
        try:
            manifest = read_manifest(source, entry)
        except OciError:
            continue  # what is lost, or no manifest, refers to nothing
        if manifest.subject and manifest.subject.digest == subject:
            yield Descriptor(
                entry.media_type,
                entry.digest,
                entry.size,
                annotations=manifest.annotations,
                artifact_type=manifest.kind,
            )
