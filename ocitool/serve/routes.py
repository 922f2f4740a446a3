"""Which handler answers what (distribution-spec, "Endpoints")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ocitool.errors import InvalidReference
from ocitool.reference import Reference
from ocitool.serve import discovery, pull, push
from ocitool.serve.messages import Refused, Request, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ocitool.serve.service import Service


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: a repository, and a tag, a digest or an upload in it; "" where it names none."""

    name: str = ""
    reference: str = ""


Handler: TypeAlias = "Callable[[Service, Request, Target], Awaitable[Response]]"


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of path.

    Attributes:
        kind: what it names, for the log.
        pattern: the whole path.
        handlers: by method.
        unknown: the error code where what it names is not there.
    """

    kind: str
    pattern: re.Pattern[str]
    handlers: Mapping[str, Handler]
    unknown: str


async def support(service: Service, request: Request, target: Target) -> Response:
    """Say that this is a registry.

    "If the response is `200 OK`, then the registry implements this specification."
    """
    del service, request, target
    return json_response({})


_PULL_BLOB: Final = {"GET": pull.get_blob, "HEAD": pull.get_blob, "DELETE": push.delete_blob}
_MANIFEST: Final = {
    "GET": pull.get_manifest,
    "HEAD": pull.head_manifest,
    "PUT": push.put_manifest,
    "DELETE": push.delete_manifest,
}
_UPLOAD: Final = {
    "GET": push.upload_status,
    "PATCH": push.append_chunk,
    "PUT": push.finish_upload,
    "DELETE": push.cancel_upload,
}
_NAME: Final = "/v2/(?P<name>.+)"
_LAST: Final = "(?P<reference>[^/]+)"


def _route(kind: str, pattern: str, handlers: Mapping[str, Handler], unknown: str = "NAME_UNKNOWN") -> Route:
    return Route(kind, re.compile(pattern), handlers, unknown)


# The first that fits. "uploads" is no digest, so uploads come before blobs.
ROUTES: Final = (
    _route("base", "/v2/?", {"GET": support, "HEAD": support}),
    _route("catalog", "/v2/_catalog", {"GET": discovery.list_repositories}),
    _route("upload", f"{_NAME}/blobs/uploads/?", {"POST": push.start_upload}, "BLOB_UPLOAD_UNKNOWN"),
    _route("upload", f"{_NAME}/blobs/uploads/{_LAST}", _UPLOAD, "BLOB_UPLOAD_UNKNOWN"),
    _route("blob", f"{_NAME}/blobs/{_LAST}", _PULL_BLOB, "BLOB_UNKNOWN"),
    _route("manifest", f"{_NAME}/manifests/{_LAST}", _MANIFEST, "MANIFEST_UNKNOWN"),
    _route("tags", f"{_NAME}/tags/list", {"GET": discovery.list_tags}),
    _route("referrers", f"{_NAME}/referrers/{_LAST}", {"GET": discovery.list_referrers}),
)


def find(path: str) -> tuple[Route, Target]:
    """The route of a path, and what the path names.

    Raises:
        Refused: there is no such path, or its repository's name breaks the grammar.
    """
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match:
            found = match.groupdict()
            name = found.get("name", "")
            if name:
                _check_name(name)
            return route, Target(name, found.get("reference", ""))
    raise Refused(404, "UNSUPPORTED", "this registry has no such path")


def _check_name(name: str) -> None:
    try:
        Reference("localhost", name)
    except InvalidReference as error:
        raise Refused(400, "NAME_INVALID", error.message) from error
