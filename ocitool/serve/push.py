"""Pushing and deleting (distribution-spec, "Push" and "Content Management")."""

from __future__ import annotations

import re
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from ocitool import mediatypes
from ocitool.content import Deleter, Mounter, Source, Store
from ocitool.digest import Digest
from ocitool.errors import InvalidReference, NotFound
from ocitool.model import Descriptor, Index, Manifest, parse_manifest, sniff_media_type
from ocitool.reference import check_tag, is_digest
from ocitool.serve.messages import Refused, Request, Response
from ocitool.serve.pull import OCTETS, etag, matches
from ocitool.streams import CHUNK

if TYPE_CHECKING:
    from ocitool.serve.routes import Target
    from ocitool.serve.service import Service
    from ocitool.serve.uploads import Upload

# "It MUST match the following regular expression: ^[0-9]+-[0-9]+$"
_CONTENT_RANGE: Final = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")


async def start_upload(service: Service, request: Request, target: Target) -> Response:
    """Begin an upload, unless the blob can be mounted or comes with the request."""
    store = await service.store(target.name, create=True)
    if "mount" in request.query:
        digest = Digest.parse(request.query["mount"])
        origin = request.query.get("from", "")
        if await service.run(lambda: _mount(service, store, digest, origin)):
            return _created(target.name, digest)
        # "if a registry does not support cross-repository mounting or is unable to mount the requested
        # blob, it SHOULD return a `202`. This indicates that the upload session has begun".
    elif "digest" in request.query:
        digest = Digest.parse(request.query["digest"])
        upload = await service.upload(target.name, store)
        async with upload.lock:
            try:
                await _receive(service, request, upload)
                return await _finish(service, upload, digest)
            finally:
                service.uploads.forget(upload)
    return _accepted(await service.upload(target.name, store))


def _mount(service: Service, store: Store, digest: Digest, origin: str) -> bool:
    """Take a blob over from another repository of this registry."""
    source: Source | None = service.repositories.open(origin) if origin else store
    if source is None:
        return False
    try:
        found = source.resolve(str(digest))
    except NotFound:
        return False
    if store.exists(found) or (isinstance(store, Mounter) and store.mount(found, source)):
        return True
    with source.fetch(found) as stream:
        store.push(found, stream)
    return True


async def append_chunk(service: Service, request: Request, target: Target) -> Response:
    """Add a chunk to an upload."""
    await service.store(target.name)
    async with service.uploads.held(target.name, target.reference) as upload:
        _check_place(request, upload)
        await _receive(service, request, upload)
        return _accepted(upload)


async def finish_upload(service: Service, request: Request, target: Target) -> Response:
    """Add the last chunk, if there is one, and make a blob of the upload."""
    await service.store(target.name)
    # "The closing `PUT` request MUST include the `<digest>` of the whole blob (not the final chunk) as a
    # query parameter."
    digest = Digest.parse(request.query.get("digest", ""))
    async with service.uploads.held(target.name, target.reference) as upload:
        _check_place(request, upload)
        await _receive(service, request, upload)
        try:
            return await _finish(service, upload, digest)
        finally:
            service.uploads.forget(upload)


async def upload_status(service: Service, request: Request, target: Target) -> Response:
    """How far an upload has come."""
    del request
    upload = service.uploads.get(target.name, target.reference)
    # "The response to an active upload `<location>` MUST be a `204 No Content` response code, and MUST have
    # the following headers: Location, Range".
    return Response(204, _accepted(upload).headers)


async def cancel_upload(service: Service, request: Request, target: Target) -> Response:
    """Forget an upload."""
    del request
    async with service.uploads.held(target.name, target.reference) as upload:
        service.uploads.forget(upload)
    return Response(204)


def _check_place(request: Request, upload: Upload) -> None:
    """Make sure that a chunk says what comes next; one that says nothing is what comes next."""
    text = request.headers.get("content-range")
    if text is None:
        return
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise Refused(400, "BLOB_UPLOAD_INVALID", f"Content-Range is {text!r:.60}, not <first>-<last>")
    first, last = int(match[1]), int(match[2])
    # "If a chunk is uploaded out of order, the registry MUST respond with a `416 Requested Range Not
    # Satisfiable` code."
    if first != upload.size or last < first:
        raise Refused(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the upload has {upload.size} bytes, so the next chunk starts there and not at {first}",
            headers=_accepted(upload).headers,
        )
    if request.length is not None and request.length != last - first + 1:
        raise Refused(400, "SIZE_INVALID", f"Content-Range {text} and Content-Length {request.length} differ")


async def _receive(service: Service, request: Request, upload: Upload) -> None:
    """Keep a request's body, one piece while the next one comes. What has come stays if the rest does not."""
    pieces: list[bytes] = []
    before, held = upload.size, 0
    writing = None
    try:
        async for piece in request.body():
            pieces.append(piece)
            held += len(piece)
            if before + request.received > service.options.blob_bytes:
                raise Refused(413, "SIZE_INVALID", f"a blob may have {service.options.blob_bytes} bytes here")
            if held >= CHUNK:
                if writing:
                    await writing
                writing = service.start(partial(upload.append, b"".join(pieces)))
                pieces, held = [], 0
    finally:
        if writing:
            await writing
        if pieces:
            await service.run(partial(upload.append, b"".join(pieces)))


async def _finish(service: Service, upload: Upload, digest: Digest) -> Response:
    desc = Descriptor(OCTETS, digest, upload.size)
    await service.run(lambda: upload.content.commit(desc))
    return _created(upload.name, digest)


def _accepted(upload: Upload) -> Response:
    headers = {"location": upload.location, "range": upload.range, "docker-upload-uuid": upload.id}
    return Response(202, headers)


def _created(name: str, digest: Digest, kind: str = "blobs") -> Response:
    location = f"/v2/{name}/{kind}/{digest}"
    return Response(201, {"location": location, "docker-content-digest": str(digest)})


async def put_manifest(service: Service, request: Request, target: Target) -> Response:
    """Add a manifest, and name it where the reference is a tag."""
    store = await service.store(target.name, create=True)
    raw = await request.read(service.options.manifest_bytes)
    desc = _described(raw, request.headers.get("content-type", ""), target.reference)
    manifest = parse_manifest(raw, desc)
    await service.run(lambda: _check_children(store, manifest, sparse=service.options.sparse_indexes))
    await service.run(lambda: store.push(desc, BytesIO(raw)))
    async with service.tagging:
        await service.run(lambda: _check_conditions(store, request, target.reference))
        await service.run(lambda: store.tag(desc, target.reference))
    response = _created(target.name, desc.digest, "manifests")
    if manifest.subject:
        # "a registry implementation that supports the referrers API MUST respond with the response header
        # `OCI-Subject: <subject digest>`".
        response.headers["oci-subject"] = str(manifest.subject.digest)
    return response


def _described(raw: bytes, content_type: str, reference: str) -> Descriptor:
    """What was pushed: its type as the client says it, its digest as the reference does."""
    # "The registry SHOULD ignore parameters on the `Content-Type` header."
    media_type = content_type.partition(";")[0].strip() or sniff_media_type(raw, "the manifest")
    if media_type not in mediatypes.MANIFESTS:
        raise Refused(
            400, "MANIFEST_INVALID", f"{media_type!r:.100} is not the type of a manifest known here"
        )
    if not is_digest(reference):
        try:
            check_tag(reference)
        except InvalidReference as error:
            raise Refused(400, "MANIFEST_INVALID", error.message) from error
        return Descriptor.of(media_type, raw)
    promised = Digest.parse(reference)
    actual = Digest.of(raw, promised.algorithm)
    if actual != promised:
        raise Refused(400, "DIGEST_INVALID", f"the manifest has the digest {actual}, not {promised}")
    return Descriptor(media_type, promised, len(raw))


def _check_children(store: Store, manifest: Manifest | Index, *, sparse: bool) -> None:
    """Make sure that what a manifest names is here; its subject need not be.

    "A registry MAY reject a manifest uploaded to the manifest endpoint with descriptors in other fields that
    reference a manifest or blob that does not exist in the registry. When a manifest is rejected for this
    reason, it MUST result in one or more `MANIFEST_BLOB_UNKNOWN` errors".
    """
    if sparse and isinstance(manifest, Index):
        return
    missing = [
        str(child.digest)
        for child in manifest.children
        if not mediatypes.is_nondistributable(child.media_type) and not store.exists(child)
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Refused(
            400,
            "MANIFEST_BLOB_UNKNOWN",
            f"the manifest names {missing[0]}{more}, which must be pushed before it",
            detail=[{"digest": digest} for digest in missing[:100]],
        )


def _check_conditions(store: Store, request: Request, reference: str) -> None:
    """Apply If-Match and If-None-Match, with which clients avoid to overwrite each other's tags."""
    if_match, if_none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if if_match is None and if_none_match is None:
        return
    try:
        current = etag(store.resolve(reference))
    except NotFound:
        current = ""
    if (if_match is not None and not (current and matches(if_match, current))) or (
        if_none_match is not None and current and matches(if_none_match, current)
    ):
        raise Refused(412, "DENIED", f"{reference} is not, or no longer, what the request expects")


async def delete_manifest(service: Service, request: Request, target: Target) -> Response:
    """Remove a tag, or a manifest with all its tags."""
    del request
    store = await _deleter(service, target)
    if is_digest(target.reference):
        await service.run(lambda: _delete(store, Digest.parse(target.reference)))
    else:
        async with service.tagging:
            await service.run(lambda: store.untag(target.reference))
    return Response(202)


async def delete_blob(service: Service, request: Request, target: Target) -> Response:
    """Remove a blob."""
    del request
    store = await _deleter(service, target)
    await service.run(lambda: _delete(store, Digest.parse(target.reference)))
    return Response(202)


@runtime_checkable
class _Deletable(Store, Deleter, Protocol): ...


async def _deleter(service: Service, target: Target) -> _Deletable:
    store = await service.store(target.name)
    # "If tag deletion is disabled, the registry MUST respond with either a `400 Bad Request` or a `405
    # Method Not Allowed`."
    if not service.options.allow_delete or not isinstance(store, _Deletable):
        raise Refused(
            405, "UNSUPPORTED", "this registry does not delete", headers={"allow": "GET, HEAD, PUT"}
        )
    return store


def _delete(store: _Deletable, digest: Digest) -> None:
    store.delete(store.resolve(str(digest)))
