"""Pulling: manifests and blobs (distribution-spec, "Pull")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ocitool import mediatypes
from ocitool.content import Source, read_verified
from ocitool.digest import Digest
from ocitool.errors import InvalidContent, NotFound
from ocitool.model import Descriptor, sniff_media_type
from ocitool.serve.messages import Content, Refused, Request, Response

if TYPE_CHECKING:
    from ocitool.serve.routes import Target
    from ocitool.serve.service import Service

OCTETS: Final = "application/octet-stream"
_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))")


async def get_manifest(service: Service, request: Request, target: Target) -> Response:
    """A manifest by tag or digest."""
    limit = service.options.manifest_bytes
    desc, raw = await service.read(
        target.name, lambda source: read_by_reference(source, target.reference, limit)
    )
    # "If the manifest has a `mediaType` field, clients SHOULD reject unless the `mediaType` field's value
    # matches the type specified by the `Content-Type` header."
    headers = {"content-type": desc.media_type, **_identity(desc)}
    if _unchanged(request, desc):
        return Response(304, headers)
    return Response(200, headers, raw)


async def head_manifest(service: Service, request: Request, target: Target) -> Response:
    """What a manifest is, without reading it where that is possible: of an upstream it would be a pull."""
    source, desc = await service.resolve(target.name, target.reference)
    if not desc.is_manifest:
        return await get_manifest(service, request, target)
    headers = {"content-type": desc.media_type, **_identity(desc)}
    if _unchanged(request, desc):
        return Response(304, headers)
    # Only told about, not opened: a HEAD has no body.
    return Response(200, headers, Content(source, desc, 0, desc.size))


def read_by_reference(source: Source, reference: str, limit: int) -> tuple[Descriptor, bytes]:
    """A manifest's descriptor, with its true media type, and its bytes.

    Raises:
        NotFound: there is none; a blob that is no manifest is none either.
    """
    desc = source.resolve(reference)
    if not desc.is_manifest and desc.size > limit:
        raise NotFound(f"{reference} is not a manifest")
    raw = read_verified(source, desc, limit=limit)
    if desc.is_manifest:
        return desc, raw
    try:
        media_type = sniff_media_type(raw, reference)
    except InvalidContent as error:
        raise NotFound(f"{reference} is not a manifest") from error
    if media_type not in mediatypes.MANIFESTS:
        raise NotFound(f"{reference} is not a manifest")
    return Descriptor(media_type, desc.digest, desc.size), raw


async def get_blob(service: Service, request: Request, target: Target) -> Response:
    """A blob, or a part of one."""
    source, desc = await service.resolve(target.name, str(Digest.parse(target.reference)))
    headers = {"content-type": OCTETS, "accept-ranges": "bytes", **_identity(desc)}
    if _unchanged(request, desc):
        return Response(304, headers)
    # RFC 9110, 14.2: "This specification defines range handling only for GET."
    part = _requested_range(request, desc) if request.method == "GET" else None
    if part is None:
        return Response(200, headers, Content(source, desc, 0, desc.size))
    start, stop = part
    headers["content-range"] = f"bytes {start}-{stop - 1}/{desc.size}"
    return Response(206, headers, Content(source, desc, start, stop))


def _identity(desc: Descriptor) -> dict[str, str]:
    # "A successful response SHOULD contain the digest of the uploaded blob in the header
    # `Docker-Content-Digest`."
    return {"docker-content-digest": str(desc.digest), "etag": etag(desc)}


def etag(desc: Descriptor) -> str:
    """Content's entity tag: nothing says better whether two bodies are the same than their digest."""
    return f'"{desc.digest}"'


def matches(condition: str, tag: str) -> bool:
    """Whether an entity tag is in the list of an If-Match or If-None-Match header (RFC 9110, 13.1)."""
    listed = [item.strip().removeprefix("W/") for item in condition.split(",")]
    return "*" in listed or tag in listed


def _unchanged(request: Request, desc: Descriptor) -> bool:
    condition = request.headers.get("if-none-match")
    return condition is not None and matches(condition, etag(desc))


def _requested_range(request: Request, desc: Descriptor) -> tuple[int, int] | None:
    header = request.headers.get("range", "")
    # RFC 9110, 13.1.5: "If the validator given does not match the current validator … the recipient SHOULD
    # ignore the Range header field".
    if request.headers.get("if-range", etag(desc)) != etag(desc):
        return None
    return parse_range(header, desc.size)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last that a Range header asks for; None is all of it.

    RFC 9110, 14.2: "A server MAY ignore the Range header field." What is no single range of bytes, is.
    "A server that supports range requests MAY ignore or reject a Range header field that contains an invalid
    ranges-specifier": a range that ends before it begins is rejected, so that nobody takes all for a part.

    Raises:
        Refused: the range lies outside, or holds nothing (416).
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    if start >= stop:
        raise Refused(
            416,
            "SIZE_INVALID",
            f"the content has {size} bytes, and none where {header} asks for them",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, stop
