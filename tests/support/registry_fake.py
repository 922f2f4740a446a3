"""A registry in the test process: a real HTTP server over dictionaries, honest unless told otherwise.

`quirks` switches on what real registries do; `before` takes over single requests; `log` is what was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from ocitool import mediatypes

_NAME = r"(?P<name>[a-z0-9._/-]+)"
_UPLOADS: Final = re.compile(rf"/v2/{_NAME}/blobs/uploads/(?P<id>[0-9a-f-]*)")
_BLOB: Final = re.compile(rf"/v2/{_NAME}/blobs/(?P<digest>[a-z0-9]+:[0-9a-f]+)")
_MANIFEST: Final = re.compile(rf"/v2/{_NAME}/manifests/(?P<ref>[^/]+)")
_TAGS: Final = re.compile(rf"/v2/{_NAME}/tags/list")
_REFERRERS: Final = re.compile(rf"/v2/{_NAME}/referrers/(?P<digest>[^/]+)")
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    def first(self, name: str) -> str:
        return self.query.get(name, [""])[0]


@dataclass
class Response:
    """What is answered; a body that is an iterable is sent piece by piece, and may raise `Cut`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""
    extra: list[tuple[str, str]] = field(default_factory=list)


class Cut(Exception):
    """Close the connection here and now."""


@dataclass
class Quirks:
    """What registries do that the specification does not say, or says otherwise."""

    no_referrers: bool = False  # the API answers 404, and OCI-Subject is not sent
    referrers_status: int = 404
    no_ranges: bool = False
    no_patch: bool = False
    no_status: bool = False  # GET of an upload answers 404
    no_delete: bool = False
    no_head: bool = False  # HEAD answers 405
    head_unauthorized: bool = False
    no_digest_header: bool = False
    manifest_type: str = ""  # Content-Type of every manifest
    patch_status: int = 202
    stuck_range: bool = False  # the Range of a PATCH never moves
    chunk_min: int = 0
    absolute_location: str = ""  # prefix of upload locations: scheme://host:port
    location_query: bool = False
    mount: bool = True
    mount_status: int = 0
    page: int = 0  # tags on a page
    tags_null: bool = False
    redirect_blobs: str = ""  # prefix of where blobs are
    max_body: int = 0


Hook = Callable[[Request], Response | None]


class FakeRegistry:
    """The server; started by `running`."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.quirks = Quirks()
        self.log: list[Request] = []
        self.before: list[Hook] = []
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.uploads: dict[str, bytes] = {}
        self.connections = 0
        self.sent = 0
        self._lock = threading.Lock()
        self._server = _Server(self, tls, host)
        self.host, self.port = host, int(self._server.server_address[1])
        self.scheme = "https" if tls else "http"

    @property
    def name(self) -> str:
        """Host and port, as they stand in a reference."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.name}"

    def asked(self, method: str = "", pattern: str = "") -> list[Request]:
        """The requests of a method whose path and query match."""
        return [r for r in self.log if method in {"", r.method} and re.search(pattern, r.path)]

    def add_blob(self, repository: str, content: bytes) -> str:
        digest = digest_of(content)
        self.blobs.setdefault(repository, {})[digest] = content
        return digest

    def add_manifest(self, repository: str, media_type: str, content: bytes, tag: str = "") -> str:
        digest = digest_of(content)
        self.manifests.setdefault(repository, {})[digest] = (media_type, content)
        if tag:
            self.tags.setdefault(repository, {})[tag] = digest
        return digest

    def answer(self, request: Request) -> Response:
        """What to say to a request."""
        with self._lock:
            self.log.append(request)
        for hook in list(self.before):
            if (response := hook(request)) is not None:
                return response
        return self.honest(request)

    def honest(self, request: Request) -> Response:
        """What the specification wants."""
        if request.path in {"/v2/", "/v2"}:
            return Response(200)
        if request.path == "/v2/_catalog":
            return _json({"repositories": sorted({*self.blobs, *self.manifests})})
        for pattern, handler in (
            (_UPLOADS, self._upload),
            (_BLOB, self._blob),
            (_MANIFEST, self._manifest),
            (_TAGS, self._tag_list),
            (_REFERRERS, self._referrers),
        ):
            match = pattern.fullmatch(request.path)
            if match:
                return handler(request, **{key: unquote(value) for key, value in match.groupdict().items()})
        return error(404, "NAME_UNKNOWN")

    # Blobs

    def _blob(self, request: Request, name: str, digest: str) -> Response:
        content = self.blobs.get(name, {}).get(digest)
        if request.method == "DELETE":
            if self.quirks.no_delete:
                return error(405, "UNSUPPORTED")
            return Response(202) if self.blobs.get(name, {}).pop(digest, None) is not None else error(404)
        if request.method == "HEAD" and self.quirks.head_unauthorized:
            return Response(401)
        if content is None:
            return error(404, "BLOB_UNKNOWN")
        if self.quirks.redirect_blobs:
            return Response(307, {"Location": f"{self.quirks.redirect_blobs}/{name}/{digest}"})
        return self.ranged(request, content, {"Docker-Content-Digest": digest})

    def ranged(self, request: Request, content: bytes, headers: dict[str, str]) -> Response:
        """Content, or the part of it that was asked for."""
        if self.quirks.no_digest_header:
            headers = {}
        headers = {"Content-Type": "application/octet-stream", **headers}
        match = _RANGE.fullmatch(request.headers.get("range", ""))
        if self.quirks.no_ranges:
            return Response(200, headers, content)
        headers["Accept-Ranges"] = "bytes"
        if match is None:
            return Response(200, headers, content)
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return Response(416, {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return Response(206, headers, content[first : last + 1])

    # Uploads

    def _upload(self, request: Request, name: str, id: str) -> Response:  # noqa: A002 - the group's name
        if request.method == "POST":
            return self._begin(request, name)
        if id not in self.uploads or (request.method == "GET" and self.quirks.no_status):
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method in {"GET", "DELETE"}:
            headers = self._at(name, id)
            if request.method == "DELETE":
                del self.uploads[id]
            return Response(204, headers)
        if request.method == "PATCH":
            return self._patch(request, name, id)
        content = self.uploads.pop(id) + request.body
        digest = request.first("digest")
        if digest != digest_of(content, digest.partition(":")[0]):
            return error(400, "DIGEST_INVALID")
        self.blobs.setdefault(name, {})[digest] = content
        return Response(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _begin(self, request: Request, name: str) -> Response:
        mounted, origin = request.first("mount"), request.first("from")
        if mounted and self.quirks.mount_status:
            return error(self.quirks.mount_status, "DENIED")
        if mounted and self.quirks.mount and mounted in self.blobs.get(origin, {}):
            self.blobs.setdefault(name, {})[mounted] = self.blobs[origin][mounted]
            return Response(201, {"Location": f"/v2/{name}/blobs/{mounted}"})
        id_ = str(uuid.uuid4())
        self.uploads[id_] = b""
        headers = self._at(name, id_)
        if self.quirks.chunk_min:
            headers["OCI-Chunk-Min-Length"] = str(self.quirks.chunk_min)
        return Response(202, headers)

    def _at(self, name: str, id_: str) -> dict[str, str]:
        query = f"?_state={uuid.uuid4()}%3D" if self.quirks.location_query else ""
        end = 0 if self.quirks.stuck_range else max(len(self.uploads[id_]) - 1, 0)
        return {
            "Location": f"{self.quirks.absolute_location}/v2/{name}/blobs/uploads/{id_}{query}",
            "Range": f"0-{end}",
        }

    def _patch(self, request: Request, name: str, id_: str) -> Response:
        if self.quirks.no_patch:
            return error(405, "UNSUPPORTED")
        first = request.headers.get("content-range", "0-").partition("-")[0]
        if int(first) != len(self.uploads[id_]):
            return Response(416, self._at(name, id_))
        self.uploads[id_] += request.body
        return Response(self.quirks.patch_status, self._at(name, id_))

    # Manifests

    def _manifest(self, request: Request, name: str, ref: str) -> Response:
        manifests, tags = self.manifests.setdefault(name, {}), self.tags.setdefault(name, {})
        if request.method == "PUT":
            return self._put(request, name, ref)
        if request.method == "DELETE":
            return self._delete(name, ref)
        digest = ref if ":" in ref else tags.get(ref, "")
        if digest not in manifests:
            return error(404, "MANIFEST_UNKNOWN")
        if request.method == "HEAD" and self.quirks.no_head:
            return error(405, "UNSUPPORTED")
        media_type, content = manifests[digest]
        headers = {"Content-Type": self.quirks.manifest_type or media_type}
        if not self.quirks.no_digest_header:
            headers["Docker-Content-Digest"] = digest
        return Response(200, headers, content)

    def _put(self, request: Request, name: str, ref: str) -> Response:
        manifests, tags = self.manifests[name], self.tags[name]
        digest = digest_of(request.body, ref.partition(":")[0] if ":" in ref else "sha256")
        if ":" in ref and ref != digest:
            return error(400, "DIGEST_INVALID")
        manifests[digest] = (request.headers["content-type"], request.body)
        if ":" not in ref:
            tags[ref] = digest
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        subject = json.loads(request.body).get("subject")
        if subject and not self.quirks.no_referrers:
            headers["OCI-Subject"] = subject["digest"]
        return Response(201, headers)

    def _delete(self, name: str, ref: str) -> Response:
        if self.quirks.no_delete:
            return error(405, "UNSUPPORTED")
        if ":" not in ref:
            return Response(202) if self.tags[name].pop(ref, None) else error(404, "MANIFEST_UNKNOWN")
        if self.manifests[name].pop(ref, None) is None:
            return error(404, "MANIFEST_UNKNOWN")
        self.tags[name] = {tag: digest for tag, digest in self.tags[name].items() if digest != ref}
        return Response(202)

    # Lists

    def _tag_list(self, request: Request, name: str) -> Response:
        if name not in self.manifests:
            return error(404, "NAME_UNKNOWN")
        tags = sorted(self.tags.get(name, {}))
        if self.quirks.tags_null and not tags:
            return _json({"name": name, "tags": None})
        size = min(self.quirks.page or int(request.first("n") or 1000), int(request.first("n") or 1000))
        page = [tag for tag in tags if tag > request.first("last")]
        response = _json({"name": name, "tags": page[:size]})
        if len(page) > size:
            link = f"/v2/{name}/tags/list?n={size}&last={page[size - 1]}"
            response.headers["Link"] = f'<{link}>; rel="next"'
        return response

    def _referrers(self, request: Request, name: str, digest: str) -> Response:
        if self.quirks.no_referrers:
            return error(self.quirks.referrers_status)
        found = []
        for known, (media_type, content) in self.manifests.get(name, {}).items():
            document = json.loads(content)
            if document.get("subject", {}).get("digest") == digest:
                kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
                found.append(
                    {
                        "mediaType": media_type,
                        "digest": known,
                        "size": len(content),
                        "artifactType": kind,
                        "annotations": document.get("annotations", {}),
                    }
                )
        index = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": found}
        response = _json(index)
        response.headers["Content-Type"] = mediatypes.OCI_INDEX
        return response

    @contextmanager
    def running(self) -> Iterator[FakeRegistry]:
        thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
            self._server.hang_up()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, registry: FakeRegistry, tls: ssl.SSLContext | None, host: str) -> None:
        self.registry = registry
        self.tls = tls
        self.open: set[Any] = set()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread."""
        self.registry.connections += 1
        self.open.add(request)
        try:
            if self.tls:
                request.settimeout(60)
                with self.tls.wrap_socket(request, server_side=True) as secure:
                    super().finish_request(secure, client_address)
            else:
                super().finish_request(request, client_address)
        except (OSError, Cut):
            pass
        finally:
            self.open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def hang_up(self) -> None:
        for request in list(self.open):
            with suppress(OSError):
                request.shutdown(2)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Server

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, Cut):
            self.close_connection = True

    def _handle(self) -> None:
        registry = self.server.registry
        parts = urlsplit(self.path)
        query: dict[str, list[str]] = {}
        for key, value in parse_qsl(parts.query, keep_blank_values=True):
            query.setdefault(key, []).append(value)
        length = int(self.headers.get("Content-Length") or 0)
        headers = {key.lower(): value for key, value in self.headers.items()}
        if registry.quirks.max_body and length > registry.quirks.max_body:
            # An early answer, while the body is still on its way.
            self._send(Request(self.command, parts.path, query, headers), error(413))
            self.close_connection = True
            time.sleep(0.2)
            return
        body = self.rfile.read(length)
        if len(body) < length:
            raise Cut
        request = Request(self.command, parts.path, query, headers, body)
        self._send(request, registry.answer(request))

    def _send(self, request: Request, response: Response) -> None:
        body = response.body
        self.send_response(response.status)
        for key, value in [*response.headers.items(), *response.extra]:
            self.send_header(key, value)
        if isinstance(body, bytes) and not any(key.lower() == "content-length" for key in response.headers):
            self.send_header("Content-Length", str(len(body)))
        elif not isinstance(body, bytes) and "Content-Length" not in response.headers:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if request.method == "HEAD" or response.status in {204, 304}:
            self.wfile.flush()
            return
        for piece in [body] if isinstance(body, bytes) else body:
            self.server.registry.sent += len(piece)  # before the client can have it
            self.wfile.write(piece)
            if not isinstance(body, bytes):
                self.wfile.flush()
        self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        pass


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def error(status: int, code: str = "", message: str = "") -> Response:
    """An error as the specification wants it."""
    errors = [{"code": code, "message": message or code.lower()}] if code else []
    return Response(status, {"Content-Type": "application/json"}, json.dumps({"errors": errors}).encode())


def _json(document: object) -> Response:
    return Response(200, {"Content-Type": "application/json"}, json.dumps(document).encode())


def on(method: str, pattern: str, *responses: Response | None) -> Hook:
    """Answer the first requests of a kind with these responses (None: honestly), later ones honestly."""
    left = list(responses)
    lock = threading.Lock()

    def hook(request: Request) -> Response | None:
        if method not in {"", request.method} or not re.search(pattern, request.path):
            return None
        with lock:
            return left.pop(0) if left else None

    return hook


def always(method: str, pattern: str, make: Callable[[Request], Response | None]) -> Hook:
    """Answer every request of a kind."""

    def hook(request: Request) -> Response | None:
        if method not in {"", request.method} or not re.search(pattern, request.path):
            return None
        return make(request)

    return hook
