"""Hostile registries: each test is one row RC-… of the list of attacks that other clients fell for."""

from __future__ import annotations

import base64
import datetime as dt
import resource
import socket
import threading
import time
import traceback
from contextlib import nullcontext
from dataclasses import replace
from io import BytesIO
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any

import pytest
from support.registry_certificates import Authority
from support.registry_fake import FakeRegistry, Request, Response, always, digest_of, on
from support.registry_faults import FaultProxy, Faults
from support.registry_images import client, image, layers_of, memory_image, put, repository, stocked

from ocitool import limits, mediatypes, strictjson
from ocitool.content import read_manifest, read_verified
from ocitool.digest import Digest
from ocitool.errors import (
    IntegrityError,
    InvalidContent,
    NotFound,
    OciError,
    RegistryError,
    Unauthorized,
    Unreachable,
    UnsafeContent,
    Unsupported,
)
from ocitool.events import Event, Noted
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.reference import Reference
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.registry_tokens import TokenServer

USER = {"username": "user", "password": "secret-password"}
BASIC = "Basic " + base64.b64encode(b"user:secret-password").decode()
SOME = digest_of(b"some blob")


@pytest.fixture
def evil() -> Iterator[FakeRegistry]:
    """A server that wants what is not its own."""
    with FakeRegistry().running() as server:
        yield server


def basic_gate(request: Request) -> Response | None:
    if request.authorization == BASIC:
        return None
    return Response(401, {"WWW-Authenticate": 'Basic realm="r"'})


def saw_no_secret(server: FakeRegistry) -> bool:
    return all("authorization" not in r.headers and "cookie" not in r.headers for r in server.log)


def blob_of(registry: FakeRegistry) -> Descriptor:
    return Descriptor.of(mediatypes.OCI_LAYER, layers_of(registry)[0])


def test_rc_01_a_layers_urls_are_not_asked(fake: FakeRegistry, evil: FakeRegistry) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    foreign = Descriptor(desc.media_type, desc.digest, desc.size, urls=(f"{evil.url}/layer",))
    with client(USER) as made:
        read_verified(repository(made, fake.name), foreign)
    assert not evil.log


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_rc_02_a_redirect_elsewhere_carries_no_credentials(
    fake: FakeRegistry, evil: FakeRegistry, status: int
) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    content = layers_of(fake)[0]
    fake.before += [
        basic_gate,
        on("GET", "/blobs/", Response(status, {"Location": f"{evil.url}/blob"})),
    ]
    evil.before.append(always("GET", "/blob", lambda request: evil.ranged(request, content, {})))
    with client(USER) as made:
        assert read_verified(repository(made, fake.name), desc) == content
    assert len(evil.log) == 1
    assert saw_no_secret(evil)


def test_rc_02_credentials_come_back_with_the_way_home(fake: FakeRegistry, evil: FakeRegistry) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    fake.before += [
        basic_gate,
        on("GET", "/blobs/", Response(307, {"Location": f"{evil.url}/hop"})),
    ]
    evil.before.append(
        always(
            "GET",
            "/hop",
            lambda _: Response(307, {"Location": f"{fake.url}/v2/some/repo/blobs/{desc.digest}"}),
        )
    )
    with client(USER) as made:
        read_verified(repository(made, fake.name), desc)
    assert saw_no_secret(evil)


@pytest.mark.parametrize(
    "location",
    ["http://user:pw@{evil}/x", "ftp://{evil}/x", "file:///etc/passwd", "http://a b/", "http://[x/"],
)
def test_rc_02_a_redirect_that_is_no_plain_url_is_refused(
    fake: FakeRegistry, evil: FakeRegistry, location: str
) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    fake.before.append(on("GET", "/blobs/", Response(307, {"Location": location.format(evil=evil.name)})))
    with client() as made, pytest.raises(OciError):
        read_verified(repository(made, fake.name), desc)
    assert not evil.log


def test_redirects_without_end_end(fake: FakeRegistry) -> None:
    fake.before.append(always("", "", lambda request: Response(307, {"Location": request.path})))
    with client() as made, pytest.raises(RegistryError, match="redirects more than 10 times"):
        repository(made, fake.name).resolve("v1")
    assert len(fake.log) == 11


@pytest.mark.parametrize(
    ("method", "status", "size"),
    [("POST", 302, 10), ("POST", 303, 10), ("PUT", 301, 10), ("PUT", 307, 3 << 20)],
    ids=str,
)
def test_a_write_is_not_led_where_it_can_not_be_sent_again_as_it_was(
    fake: FakeRegistry, method: str, status: int, size: int
) -> None:
    moved = Response(status, {"Location": "/v2/some/repo/blobs/uploads/elsewhere"})
    fake.before.append(always(method, "/uploads/", lambda _: moved))
    with client(retries=1) as made, pytest.raises(RegistryError, match=f"{method} .* is redirected to"):
        put(repository(made, fake.name), mediatypes.OCI_LAYER, bytes(size))
    assert not fake.asked("", "/uploads/elsewhere")


def test_a_write_is_not_led_to_another_server(fake: FakeRegistry, evil: FakeRegistry) -> None:
    fake.before.append(always("POST", "/uploads/", lambda _: Response(307, {"Location": f"{evil.url}/x"})))
    with client(retries=1) as made, pytest.raises(RegistryError, match="is redirected to"):
        put(repository(made, fake.name), mediatypes.OCI_LAYER, b"content")
    assert not evil.log


def test_rc_03_a_challenge_from_elsewhere_is_not_answered(
    fake: FakeRegistry, evil: FakeRegistry, token_server: TokenServer
) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    token_server.protects(fake)
    fake.before.append(always("GET", "/blobs/", lambda _: Response(307, {"Location": f"{evil.url}/x"})))
    challenge = token_server.challenge("repository:some/repo:pull,push")
    evil.before.append(always("", "", lambda _: Response(401, {"WWW-Authenticate": challenge})))
    with client(USER, retries=2) as made:
        repo = repository(made, fake.name)
        with pytest.raises(Unauthorized):
            read_verified(repo, desc)
        assert saw_no_secret(evil)
        tokens = len(token_server.log)
        repo.resolve("v1")
    # What evil asked for has not changed what the registry is told.
    assert len(token_server.log) == tokens
    assert all("push" not in str(request.query) for request in token_server.log)


@pytest.mark.parametrize(
    "realm",
    [
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://169.254.169.254./",
        "http://\xb969.254.169.254/",
        "http://0.0.0.0/",
        "http://[fe80::1]/",
        "http://user:pw@127.0.0.1/",
        "http://metadata.example/",
        "gopher://127.0.0.1/",
    ],
)
def test_rc_04_a_realm_inside_is_refused_before_it_is_asked(
    fake: FakeRegistry, realm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, connected = socket.getaddrinfo, []
    connect = socket.socket.connect_ex

    def resolve(host: Any, *args: Any, **more: Any) -> Any:
        # A name whose address is only known once it has been asked for.
        return ask("169.254.169.254" if host == "metadata.example" else host, *args, **more)

    def note(self: socket.socket, address: Any) -> int:
        connected.append(address[0])
        return connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect_ex", note)
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}
    fake.before.append(always("", "", lambda _: Response(401, challenge)))
    # With a password it is refused for more than one reason, so it has to be without as well.
    for config in ({}, USER):
        with client(config, retries=1) as made, pytest.raises(OciError):
            repository(made, fake.name).resolve("v1")
    assert set(connected) == {"127.0.0.1"}


def test_rc_04_a_registry_with_tls_can_not_have_its_tokens_fetched_without(
    tmp_path: Path, evil: FakeRegistry
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with FakeRegistry(authority.server_context(tmp_path)).running() as fake:
        fake.before.append(
            always("", "", lambda _: Response(401, {"WWW-Authenticate": f'Bearer realm="{evil.url}/token"'}))
        )
        with client(USER, ca_file=tmp_path / "ca.pem") as made, pytest.raises(RegistryError, match="down to"):
            repository(made, fake.name).resolve("v1")
    assert not evil.log


def test_rc_04_a_relative_realm_is_the_registrys_own(fake: FakeRegistry) -> None:
    stocked(fake, 10)

    def gate(request: Request) -> Response | None:
        if request.path == "/token":
            return Response(200, {}, b'{"token":"abc"}')
        if request.authorization == "Bearer abc":
            return None
        return Response(401, {"WWW-Authenticate": 'Bearer realm="/token",service="s"'})

    fake.before.append(gate)
    with client() as made:
        repository(made, fake.name).resolve("v1")


@pytest.mark.parametrize("status", [302, 307])
def test_rc_05_a_token_service_that_sends_us_elsewhere_is_refused(
    fake: FakeRegistry, evil: FakeRegistry, token_server: TokenServer, status: int, tmp_path: Path
) -> None:
    token_server.protects(fake)
    token_server.server.before.insert(
        0, always("", "/token", lambda _: Response(status, {"Location": f"{evil.url}/token"}))
    )
    with client(USER) as made, pytest.raises(RegistryError, match="redirected"):
        repository(made, fake.name).resolve("v1")
    identity = tmp_path / "auth.json"
    identity.write_text(f'{{"auths":{{"{fake.name}":{{"identitytoken":"secret-refresh-token"}}}}}}')
    with client(authfile=identity) as made, pytest.raises(RegistryError):
        repository(made, fake.name).resolve("v1")
    assert not evil.log


def test_rc_05_a_refresh_token_stays_where_it_was_sent(
    fake: FakeRegistry, token_server: TokenServer, tmp_path: Path
) -> None:
    token_server.protects(fake)
    token_server.server.before.insert(0, on("POST", "/token", Response(307, {"Location": "/elsewhere"})))
    identity = tmp_path / "auth.json"
    identity.write_text(f'{{"auths":{{"{fake.name}":{{"identitytoken":"secret-refresh-token"}}}}}}')
    with client(authfile=identity) as made, pytest.raises(RegistryError, match="is redirected to"):
        repository(made, fake.name).resolve("v1")
    assert [request.path for request in token_server.server.log] == ["/token"]


def upload_to(fake: FakeRegistry, location: str, **config: Any) -> None:
    fake.before += [basic_gate, on("POST", "/uploads/", Response(202, {"Location": location}))]
    with client(USER, **config) as made:
        put(repository(made, fake.name), mediatypes.OCI_LAYER, b"some blob")


@pytest.mark.parametrize("form", ["{url}/upload", "//{name}/upload"])
def test_rc_06_an_upload_elsewhere_carries_no_credentials(
    fake: FakeRegistry, evil: FakeRegistry, form: str
) -> None:
    evil.before.append(always("PUT", "/upload", lambda _: Response(201)))
    upload_to(fake, form.format(url=evil.url, name=evil.name))
    assert [request.body for request in evil.log] == [b"some blob"]
    assert saw_no_secret(evil)


@pytest.mark.parametrize("location", ["http://169.254.169.254/upload", "http://[fe80::1]/upload"])
def test_rc_06_an_upload_to_an_address_inside_is_refused(fake: FakeRegistry, location: str) -> None:
    with pytest.raises(Unreachable, match="may not send us"):
        upload_to(fake, location, retries=1)


def test_rc_06_an_upload_is_not_led_out_of_tls(tmp_path: Path, evil: FakeRegistry) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with FakeRegistry(authority.server_context(tmp_path)).running() as fake:
        with pytest.raises(RegistryError, match="down to"):
            upload_to(fake, f"{evil.url}/upload", ca_file=tmp_path / "ca.pem")
        assert not evil.log
        fake.before.clear()
        # The same host by http is a registry that does not know of its TLS.
        fake.quirks.absolute_location = f"http://{fake.name}"
        with client(ca_file=tmp_path / "ca.pem") as made:
            put(repository(made, fake.name), mediatypes.OCI_LAYER, b"other blob")


@pytest.mark.parametrize(
    "form", ["<{evil}/v2/some/repo/tags/list>", "<//{name}/x>", "<http://169.254.169.254/>"]
)
def test_rc_07_a_next_page_elsewhere_is_refused(fake: FakeRegistry, evil: FakeRegistry, form: str) -> None:
    link = form.format(evil=evil.url, name=evil.name) + '; rel="next"'
    fake.before.append(always("", "/tags/", lambda _: Response(200, {"Link": link}, b'{"tags":["a"]}')))
    with client(retries=1) as made, pytest.raises(RegistryError, match="elsewhere"):
        list(repository(made, fake.name).tags())
    assert not evil.log


def test_rc_08_pages_that_lead_in_a_circle_end(fake: FakeRegistry) -> None:
    link = {"Link": '</v2/some/repo/tags/list?n=1&last=a>; rel="next"'}
    fake.before.append(always("", "/tags/", lambda _: Response(200, link, b'{"tags":["a"]}')))
    with client() as made, pytest.raises(RegistryError, match="circle"):
        list(repository(made, fake.name).tags())


def test_rc_08_pages_without_end_end(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocitool.registry.listing._MAX_PAGES", 50)

    def page(_: Request) -> Response:
        link = f'</v2/some/repo/tags/list?last={len(fake.log)}>; rel="next"'
        return Response(200, {"Link": link}, b'{"tags":[]}')

    fake.before.append(always("", "/tags/", page))
    with client() as made, pytest.raises(RegistryError, match="more than 50 pages"):
        list(repository(made, fake.name).tags())


def test_rc_08_names_without_end_end(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocitool.registry.listing._MAX_ITEMS", 50)

    def page(_: Request) -> Response:
        link = f'</v2/some/repo/tags/list?last={len(fake.log)}>; rel="next"'
        return Response(200, {"Link": link}, strictjson.dumps({"tags": ["a"] * 20}))

    fake.before.append(always("", "/tags/", page))
    with client() as made, pytest.raises(RegistryError, match="more than 50 names"):
        list(repository(made, fake.name).tags())
    assert len(fake.log) == 3


AMBIGUOUS = {"schemaVersion": 2, "config": {}, "layers": [], "manifests": []}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": []}


@pytest.mark.parametrize(
    ("document", "announced"),
    [
        (AMBIGUOUS, mediatypes.OCI_MANIFEST),
        (AMBIGUOUS, mediatypes.OCI_INDEX),
        (AMBIGUOUS, "application/json"),
        (INDEX, mediatypes.OCI_MANIFEST),
        ({"schemaVersion": 2}, "application/octet-stream"),
    ],
)
def test_rc_09_a_document_with_two_meanings_has_none(
    fake: FakeRegistry, document: dict[str, Any], announced: str
) -> None:
    fake.add_manifest("some/repo", announced, strictjson.dumps(document), "v1")
    with client() as made:
        repo = repository(made, fake.name)
        with pytest.raises(InvalidContent):
            read_manifest(repo, repo.resolve("v1"))


def test_rc_09_parameters_of_the_content_type_do_not_matter(fake: FakeRegistry) -> None:
    fake.add_manifest("some/repo", f"{mediatypes.OCI_INDEX}; charset=utf-8", strictjson.dumps(INDEX), "v1")
    with client() as made:
        assert repository(made, fake.name).resolve("v1").media_type == mediatypes.OCI_INDEX


@pytest.mark.parametrize("says", ["what was asked", "what it sends", "nothing"])
def test_rc_10_a_digest_that_is_answered_with_other_content_is_refused(fake: FakeRegistry, says: str) -> None:
    wanted = stocked(fake, 10)
    other = strictjson.dumps(INDEX)
    fields = {"what was asked": str(wanted.digest), "what it sends": digest_of(other), "nothing": ""}
    headers = {"Content-Type": mediatypes.OCI_INDEX, "Docker-Content-Digest": fields[says]}
    fake.before.append(always("GET", "/manifests/", lambda _: Response(200, headers, other)))
    destination = MemoryStore()
    with client() as made, pytest.raises(IntegrityError):
        copy(repository(made, fake.name), destination, str(wanted.digest), to="v1")
    assert not destination._content


def test_rc_11_content_is_named_by_its_bytes_whatever_the_header_says(fake: FakeRegistry) -> None:
    raw = strictjson.dumps(INDEX)
    headers = {"Content-Type": mediatypes.OCI_INDEX, "Docker-Content-Digest": SOME}
    fake.before.append(always("GET", "/manifests/", lambda _: Response(200, headers, raw)))
    events: list[Event] = []
    with client(on_event=events.append) as made:
        assert repository(made, fake.name).resolve("v1").digest == Digest.of(raw)
    assert any(isinstance(event, Noted) and SOME in event.message for event in events)


def test_rc_11_a_registry_that_calls_what_it_was_given_otherwise_is_told_of(fake: FakeRegistry) -> None:
    answer = Response(201, {"Docker-Content-Digest": SOME})
    fake.before.append(on("PUT", "/manifests/", answer))
    events: list[Event] = []
    with client(on_event=events.append) as made:
        image(repository(made, fake.name), 10, tag="")
    assert any(isinstance(event, Noted) and SOME in event.message for event in events)


@pytest.mark.parametrize("change", [1, -1, 1000])
def test_rc_12_a_blob_of_another_size_is_refused(fake: FakeRegistry, change: int) -> None:
    stocked(fake, 5000)
    desc = blob_of(fake)
    content = layers_of(fake)[0]
    wrong = content[:change] if change < 0 else content + b"x" * change
    fake.before.append(always("GET", "/blobs/", lambda _: Response(200, {}, wrong)))
    with client() as made, pytest.raises(IntegrityError):
        read_verified(repository(made, fake.name), desc)


def test_rc_12_a_manifest_of_another_size_is_not_used(fake: FakeRegistry) -> None:
    """Neither read anew nor from memory, as what is to be tagged or deleted."""
    good = stocked(fake, 10)
    wrong = replace(good, size=good.size - 1)
    with client() as made:
        repo = repository(made, fake.name)
        for _ in range(2):
            with pytest.raises(IntegrityError, match="longer than"):
                repo.tag(wrong, "v2")
        with pytest.raises(IntegrityError, match="longer than"):
            repo.delete(wrong)
        repo.tag(good, "v3")
    assert sorted(fake.tags["some/repo"]) == ["v1", "v3"]


def endless(piece: bytes = b"x" * 65536) -> Iterator[bytes]:
    yield b'{"token":"'
    while True:
        yield piece


@pytest.mark.parametrize("what", ["manifest", "tags", "referrers", "error", "token", "blob", "header"])
def test_rc_13_an_answer_without_end_is_cut_off(fake: FakeRegistry, what: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    challenge = {"WWW-Authenticate": 'Bearer realm="/token",service="s"'}
    answers = {
        "error": lambda _: Response(400, {}, endless()),
        "header": lambda _: Response(200, {f"X-{i}": "x" * 60_000 for i in range(50)}),
    }
    if what == "token":
        fake.before.append(
            lambda request: (
                Response(200, {}, endless()) if request.path == "/token" else Response(401, challenge)
            )
        )
    else:
        fake.before.append(always("", "", answers.get(what, lambda _: Response(200, INDEX_TYPE, endless()))))
    blob = Descriptor.of(mediatypes.OCI_LAYER, b"x" * 100_000)
    with client() as made:
        repo = repository(made, fake.name)
        ask: dict[str, Callable[[], object]] = {
            "tags": lambda: list(repo.tags()),
            "referrers": lambda: list(repo.referrers(blob)),
            "blob": lambda: read_verified(repo, blob),
        }
        with pytest.raises(OciError):
            ask.get(what, lambda: repo.resolve("v1"))()
    assert time.monotonic() - started < 5
    # In KiB; what other tests used before counts as well, so only the growth can be judged.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10


INDEX_TYPE = {"Content-Type": mediatypes.OCI_INDEX}


@pytest.mark.parametrize("what", ["manifest", "referrers"])
@pytest.mark.parametrize("excess", [0, 1])
def test_rc_13_a_manifest_or_list_of_referrers_has_four_mebibytes_at_most(
    fake: FakeRegistry, what: str, excess: int
) -> None:
    document = b'{"schemaVersion":2,"manifests":[]}'.ljust(limits.MANIFEST_BYTES + excess)
    subject = Descriptor.of(mediatypes.OCI_MANIFEST, b"{}")
    fake.before.append(always("GET", "", lambda _: Response(200, INDEX_TYPE, document)))
    with client() as made:
        repo = repository(made, fake.name)
        ask = (lambda: repo.resolve("v1")) if what == "manifest" else (lambda: repo.referrers(subject))
        with pytest.raises(RegistryError, match="larger than 4194304") if excess else nullcontext():
            ask()


def test_sg_03_referrers_without_end_end(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocitool.limits.INDEX_ENTRIES", 50)
    subject = Descriptor.of(mediatypes.OCI_MANIFEST, b"{}")
    entries = [Descriptor.of(mediatypes.OCI_MANIFEST, b"%d" % n).to_json() for n in range(10)]
    document = strictjson.dumps({"schemaVersion": 2, "manifests": entries})

    def page(request: Request) -> Response:
        link = f'<{request.path}?at={len(fake.log)}>; rel="next"'
        return Response(200, {**INDEX_TYPE, "Link": link}, document)

    fake.before.append(always("GET", "/referrers/", page))
    with client() as made, pytest.raises(UnsafeContent, match="there are more than 50"):
        repository(made, fake.name).referrers(subject)
    assert len(fake.log) == 6


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, gzip", ", ".join(["gzip"] * 100)])
@pytest.mark.parametrize("status", [200, 307])
def test_rc_14_packed_answers_are_refused_unread(fake: FakeRegistry, coding: str, status: int) -> None:
    stocked(fake, 10)
    headers = {"Content-Encoding": coding, "Location": "/elsewhere"}
    fake.before.append(always("GET", "/manifests/", lambda _: Response(status, headers, endless())))
    with client() as made, pytest.raises(RegistryError, match="coding"):
        repository(made, fake.name).resolve("v1")
    assert {request.headers["accept-encoding"] for request in fake.log} == {"identity"}


def resumed(fake: FakeRegistry, answer: Response) -> bytes:
    """Read a blob from its 100th byte on, where a range is answered like this."""
    stocked(fake, 1000)
    desc = blob_of(fake)
    fake.before.append(on("GET", "/blobs/", answer))
    with client() as made, repository(made, fake.name).fetch(desc, offset=100) as reader:
        return reader.read()


@pytest.mark.parametrize(
    "ranges",
    [
        ["bytes 99-999/1000"],
        ["bytes 101-999/1000"],
        ["bytes 0-999/1000"],
        [],
        ["bytes 100-999/1000", "bytes 100-999/1000"],
        ["bytes 100-1000/1000"],
        ["bytes 100-1000/*"],
        ["bytes 999-100/1000"],
        ["items 100-999/1000"],
        ["bytes 100-999/x"],
    ],
)
def test_rc_15_a_range_that_was_not_asked_for_is_not_joined(fake: FakeRegistry, ranges: list[str]) -> None:
    answer = Response(206, {}, b"x" * 900, extra=[("Content-Range", value) for value in ranges])
    with pytest.raises(RegistryError, match="asked for the bytes"):
        resumed(fake, answer)


def test_rc_15_a_range_of_another_whole_is_not_joined(fake: FakeRegistry) -> None:
    with pytest.raises(IntegrityError):
        resumed(fake, Response(206, {"Content-Range": "bytes 100-999/1001"}, b"x" * 900))


def test_rc_15_the_whole_in_answer_to_a_range_starts_anew(fake: FakeRegistry) -> None:
    fake.quirks.no_ranges = True
    stocked(fake, 1000)
    desc = blob_of(fake)
    with client() as made, repository(made, fake.name).fetch(desc, offset=100) as reader:
        assert reader.read() == layers_of(fake)[0][100:]


def test_rc_15_a_refused_range_starts_anew(fake: FakeRegistry) -> None:
    assert len(resumed(fake, Response(416, {"Content-Range": "bytes */1000"}))) == 900


@pytest.mark.parametrize(
    "ref",
    [
        "sha256:../../x",
        f"{SOME}/../y",
        f"{SOME}?a=b",
        "sha256:%2e%2e",
        SOME.upper(),
        SOME[:-1],
        SOME + "0",
        SOME + "\n",
        "sha512:" + SOME[7:],
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "a" * 129,
        "v1\r\nX-Evil: 1",
        "../../v1",
        "v1?n=1",
        "",
    ],
)
def test_rc_16_a_ref_that_is_neither_tag_nor_digest_is_never_sent(fake: FakeRegistry, ref: str) -> None:
    with client() as made:
        repo = repository(made, fake.name)
        with pytest.raises(OciError):
            repo.resolve(ref)
        with pytest.raises(OciError):
            repo.untag(ref)
        with pytest.raises(OciError):
            repo.tag(Descriptor.of(mediatypes.OCI_MANIFEST, b"{}"), ref)
        with pytest.raises(OciError):
            repo.publish(Descriptor.of(mediatypes.OCI_MANIFEST, b"{}"), BytesIO(b"{}"), ref)
    assert not fake.asked("", r"\.\.|evil|\?|PUT|DELETE")
    assert not fake.log


@pytest.mark.parametrize("name", ["a/../../b", "A", "a//b", "a/", "/a", "a\n", "a?b", "a#b", "a%2fb"])
def test_rc_16_a_repository_that_is_none_can_not_be_named(name: str) -> None:
    with pytest.raises(OciError):
        Reference("registry.example", name)


@pytest.mark.parametrize(
    "body",
    [
        b'{"token":"a","token":"b"}',
        b'{"token":"a","expires_in":NaN}',
        b'{"token":"a","expires_in":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"token":"\\ud800"}',
        b'{"token":"a b"}',
        b'{"token":"a\\r\\nX-Evil: 1"}',
        b'{"token":5}',
        b'{"token":""}',
        b"{}",
        b"\xff",
        b"",
    ],
)
def test_rc_23_a_token_that_is_no_plain_json_is_an_error(fake: FakeRegistry, body: bytes) -> None:
    def gate(request: Request) -> Response:
        if request.path == "/token":
            return Response(200, {}, body)
        return Response(401, {"WWW-Authenticate": 'Bearer realm="/token"'})

    fake.before.append(gate)
    with client() as made, pytest.raises(RegistryError):
        repository(made, fake.name).resolve("v1")
    assert {request.authorization for request in fake.log} == {""}


def test_a_token_that_is_refused_and_given_again_is_not_sent_for_ever(fake: FakeRegistry) -> None:
    def gate(request: Request) -> Response:
        if request.path == "/token":
            return Response(200, {}, b'{"token":"always-the-same"}')
        return Response(401, {"WWW-Authenticate": 'Bearer realm="/token"'})

    fake.before.append(gate)
    with client() as made, pytest.raises(Unauthorized):
        repository(made, fake.name).resolve("v1")
    assert len([request for request in fake.log if request.path == "/token"]) == 2


NASTY = "\x1b[31mred\x07 \u202eabc\u2028 line"


def test_rc_17_what_a_registry_says_moves_no_cursor(fake: FakeRegistry) -> None:
    body = strictjson.dumps({"errors": [{"code": NASTY, "message": NASTY}]})
    warning = '299 - "be\x1bware"'
    fake.before.append(always("", "", lambda _: Response(400, {"Warning": warning}, body)))
    events: list[Event] = []
    with client(on_event=events.append) as made, pytest.raises(OciError) as caught:
        repository(made, fake.name).resolve("v1")
    said = str(caught.value) + "".join(str(event) for event in events)
    assert "red" in said
    assert "ware" in said
    assert not {"\x1b", "\x07", "\u202e", "\u2028"} & set(said)


@pytest.mark.parametrize("field", ["username", "password", "registry_token"])
def test_rc_17_a_credential_with_a_line_break_is_refused(fake: FakeRegistry, field: str) -> None:
    fake.before.append(basic_gate)
    given = {**USER, field: "secret\r\nX-Evil: 1"}
    with client(given) as made, pytest.raises(OciError, match="control character") as caught:
        repository(made, fake.name).resolve("v1")
    assert "X-Evil" not in str(caught.value)
    assert all("x-evil" not in request.headers for request in fake.log)


def all_of(action: Callable[..., object], *args: object) -> str:
    """Everything that the error of an action holds."""
    try:
        action(*args)
    except OciError as error:
        return f"{error!r} {error} {error.hint} {vars(error)} {''.join(traceback.format_exception(error))}"
    return ""


def test_rc_18_a_token_that_no_header_can_hold_is_not_repeated(
    fake: FakeRegistry, token_server: TokenServer
) -> None:
    token_server.protects(fake)
    with client({"registry_token": "secret-token "}) as made:
        told = all_of(repository(made, fake.name).resolve, "v1")
    assert "header" in told
    assert "secret" not in told


def test_rc_18_no_secret_is_in_anything_that_is_said(
    fake: FakeRegistry, token_server: TokenServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every flow, succeeding and failing, with all that could be logged or printed caught."""
    caplog.set_level("DEBUG")
    stocked(fake, 1000)
    desc = blob_of(fake)
    token_server.protects(fake)
    signed = "/storage?X-Amz-Signature=secret-signature&sig=secret-sig"
    fake.before.append(on("GET", "/blobs/", *[Response(307, {"Location": signed})] * 4))
    fake.before.append(always("GET", "/storage", lambda _: Response(403, {}, b"denied")))
    identity = tmp_path / "auth.json"
    identity.write_text(f'{{"auths":{{"{fake.name}":{{"identitytoken":"secret-refresh-token"}}}}}}')
    said: list[str] = []
    events: list[Event] = []
    flows: tuple[dict[str, Any], ...] = (
        USER,
        {**USER, "password": "secret-wrong"},
        {"authfile": identity},
        {"registry_token": "secret-token"},
    )
    for config in flows:
        with client(config, on_event=events.append, retries=2) as made:
            said.append(repr(made._config))
            repo = repository(made, fake.name)
            said += [
                all_of(repo.resolve, "v1"),
                all_of(read_verified, repo, desc),
                all_of(repo.resolve, "no"),
            ]
    said += [repr(event) for event in events]
    said += [record.getMessage() for record in caplog.records if record.name.startswith("ocitool")]
    everything = "\n".join(said)
    tokens = list(token_server.issued)
    assert tokens
    for secret in ("secret-", *tokens, BASIC):
        assert secret not in everything


def test_rc_20_a_mirror_sees_only_its_own_credentials(
    fake: FakeRegistry, evil: FakeRegistry, tmp_path: Path
) -> None:
    desc = stocked(evil, 10)
    fake.before.append(basic_gate)
    evil.before.append(
        lambda request: (
            None if request.authorization else Response(401, {"WWW-Authenticate": "Basic realm=m"})
        )
    )
    (tmp_path / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{fake.name}"\n[[registry.mirror]]\nlocation = "{evil.name}"\n'
    )
    own = base64.b64encode(b"mirror:mirror-password").decode()
    (tmp_path / "auth.json").write_text(f'{{"auths":{{"{evil.name}":{{"auth":"{own}"}}}}}}')
    conf = {"registries_conf": tmp_path / "registries.conf", "authfile": tmp_path / "auth.json"}
    with client({**USER, **conf}) as made:
        assert repository(made, fake.name).resolve("v1") == desc
    assert {request.authorization for request in evil.log} == {"", f"Basic {own}"}
    assert {request.first("ns") for request in evil.log} == {fake.name}
    assert not fake.log


def test_a_mirror_whose_blob_was_wrong_is_not_asked_for_it_again(
    fake: FakeRegistry, evil: FakeRegistry, tmp_path: Path
) -> None:
    stocked(fake, 10)
    desc = blob_of(fake)
    evil.before.append(always("GET", "/blobs/", lambda _: Response(200, {}, bytes(desc.size))))
    (tmp_path / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{fake.name}"\n[[registry.mirror]]\nlocation = "{evil.name}"\n'
    )
    with client(registries_conf=tmp_path / "registries.conf") as made:
        repo = repository(made, fake.name)
        with pytest.raises(IntegrityError):
            read_verified(repo, desc)
        assert Digest.of(read_verified(repo, desc)) == desc.digest
    assert len(evil.log) == 1


def test_a_mirror_for_digests_is_not_believed_what_a_tag_names(
    fake: FakeRegistry, evil: FakeRegistry, tmp_path: Path
) -> None:
    desc, other = stocked(fake, 10), stocked(evil, 10)
    (tmp_path / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{fake.name}"\n[[registry.mirror]]\nlocation = "{evil.name}"\n'
        'pull-from-mirror = "digest-only"\n'
    )
    with client(registries_conf=tmp_path / "registries.conf") as made:
        repo = repository(made, fake.name)
        assert repo.resolve("v1") == desc
        assert not evil.log
        assert repo.resolve(str(other.digest)) == other


@pytest.mark.parametrize(
    ("hosts", "days", "words"),
    [
        (("127.0.0.1",), -10, "needs a new certificate"),
        (("127.0.0.1",), 10, "clock right?;"),
        (("other.example",), 0, "by a name that is in its certificate"),
    ],
)
def test_rc_21_a_certificate_that_is_not_valid_ends_it(
    tmp_path: Path, hosts: tuple[str, ...], days: int, words: str
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = authority.server_context(tmp_path, hosts=hosts, shift=dt.timedelta(days=days))
    with FakeRegistry(context).running() as fake:
        with client(USER, ca_file=tmp_path / "ca.pem") as made, pytest.raises(Unreachable) as caught:
            repository(made, fake.name).resolve("v1")
        assert words in str(caught.value) + caught.value.hint
        assert not caught.value.temporary
        with client(USER) as made, pytest.raises(Unreachable, match="not valid"):
            repository(made, fake.name).resolve("v1")
        assert not fake.log


def test_rc_21_http_is_no_way_out_of_tls_that_fails() -> None:
    """Only to who surely speaks no TLS, or is not there, is anything else said."""
    alert = bytes([0x15, 3, 3, 0, 2, 2, 40])  # fatal: handshake_failure
    heard: list[bytes] = []

    class Refusing(BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(1 << 16))
            self.request.sendall(alert)

    with ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with client(USER) as made, pytest.raises(Unreachable, match=r"TLS with .* failed"):
                repository(made, f"127.0.0.1:{server.server_address[1]}").resolve("v1")
        finally:
            server.shutdown()
            thread.join()
    assert {first[:1] for first in heard} == {b"\x16"}  # a handshake, each time


@pytest.mark.parametrize("how", ["reset", "end"])
def test_rc_21_a_handshake_that_is_cut_off_is_no_reason_to_speak_http_from_then_on(
    tmp_path: Path, how: str
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with FakeRegistry(authority.server_context(tmp_path)).running() as fake:
        desc = stocked(fake, 10)
        mended = threading.Event()
        faults = Faults(limits=lambda _: None if mended.is_set() else 0, how=how)
        with (
            FaultProxy((fake.host, fake.port), faults).running() as between,
            client(ca_file=tmp_path / "ca.pem", retries=1) as made,
        ):
            repo = repository(made, between.name)
            with pytest.raises(OciError):
                repo.resolve("v1")
            mended.set()
            assert repo.resolve("v1") == desc


def test_rc_21_http_is_no_way_out_for_credentials() -> None:
    """By its other name this machine is as far away as any."""
    with FakeRegistry(host=_own_address()).running() as far:
        stocked(far, 10)
        far.before.append(basic_gate)
        with client(USER) as made, pytest.raises(Unreachable, match="does not speak TLS"):
            repository(made, far.name).resolve("v1")
        assert not far.log
        with client(USER, tls_verify=False) as made, pytest.raises(RegistryError, match="not sent"):
            repository(made, far.name).resolve("v1")
        assert {request.authorization for request in far.log} == {""}
        with client(USER, plain_http=True) as made:
            repository(made, far.name).resolve("v1")


def test_a_refresh_token_is_not_sent_without_tls(tmp_path: Path) -> None:
    """It travels in a body, and no field of the request's header says that it is a secret."""
    with FakeRegistry(host=_own_address()).running() as far:
        challenge = {"WWW-Authenticate": 'Bearer realm="/token"'}
        far.before.append(lambda _: Response(401, challenge))
        identity = tmp_path / "auth.json"
        identity.write_text(f'{{"auths":{{"{far.name}":{{"identitytoken":"secret-refresh-token"}}}}}}')
        with (
            client(authfile=identity, tls_verify=False) as made,
            pytest.raises(RegistryError, match="not sent"),
        ):
            repository(made, far.name).resolve("v1")
        assert not far.asked("POST")


def _own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_rc_24_a_list_of_referrers_that_is_none_is_empty(fake: FakeRegistry) -> None:
    fake.quirks.no_referrers = True
    subject = stocked(fake, 10)
    tag = f"sha256-{subject.digest.hex}"
    document = fake.manifests["some/repo"][str(subject.digest)]
    with client() as made:
        repo = repository(made, fake.name)
        fake.tags["some/repo"][tag] = str(subject.digest)  # as GitLab resolves it
        assert list(repo.referrers(subject)) == []
        fake.add_manifest("some/repo", document[0], document[1] + b" ", tag)  # no index
        assert list(repo.referrers(subject)) == []
        other = image(repo, 20, tag="")
        index = {**INDEX, "manifests": [other.to_json(), subject.to_json()]}
        fake.add_manifest("some/repo", mediatypes.OCI_INDEX, strictjson.dumps(index), tag)  # of others
        assert list(repo.referrers(subject)) == []


def test_rc_24_a_list_of_referrers_that_only_says_it_is_one_is_empty_and_left_alone(
    fake: FakeRegistry,
) -> None:
    fake.quirks.no_referrers = True
    subject = stocked(fake, 10)
    tag = f"sha256-{subject.digest.hex}"
    taken = fake.add_manifest("some/repo", mediatypes.OCI_INDEX, b'{"schemaVersion":2}', tag)
    with client() as made:
        repo = repository(made, fake.name)
        assert list(repo.referrers(subject)) == []
        with pytest.raises(RegistryError, match="no list of referrers"):
            image(repo, 10, tag="", subject=subject.to_json())
    assert fake.tags["some/repo"][tag] == str(taken)


def test_rc_24_what_is_listed_as_another_thing_than_it_is_refers_to_nothing(fake: FakeRegistry) -> None:
    fake.quirks.no_referrers = True
    subject = stocked(fake, 10)
    with client() as made:
        repo = repository(made, fake.name)
        good = image(repo, 20, tag="", subject=subject.to_json())
        listed = [
            {**good.to_json(), "mediaType": mediatypes.OCI_LAYER},
            {**good.to_json(), "mediaType": mediatypes.OCI_INDEX},
            {**good.to_json(), "digest": SOME},
            {**good.to_json(), "size": good.size + 1},
        ]
        tag = f"sha256-{subject.digest.hex}"
        index = strictjson.dumps({**INDEX, "manifests": [*listed, good.to_json()]})
        fake.add_manifest("some/repo", mediatypes.OCI_INDEX, index, tag)
    events: list[Event] = []
    with client(on_event=events.append) as made:
        assert list(repository(made, fake.name).referrers(subject)) == [good]
    told = [event.message for event in events if isinstance(event, Noted)]
    assert len(told) == 3
    assert all(f"a referrer that {tag} lists is left out: " in message for message in told)


@pytest.mark.parametrize(
    ("announced", "inside"),
    [
        (mediatypes.DOCKER_INDEX, {}),
        (mediatypes.DOCKER_INDEX, {"mediaType": mediatypes.DOCKER_INDEX}),
        (mediatypes.DOCKER_INDEX, {"mediaType": mediatypes.OCI_INDEX}),
        (mediatypes.OCI_INDEX, {"mediaType": mediatypes.DOCKER_INDEX}),
        ("application/json", {"mediaType": mediatypes.DOCKER_INDEX}),
    ],
)
def test_rc_24_a_docker_manifest_list_is_no_list_of_referrers(
    fake: FakeRegistry, announced: str, inside: dict[str, str]
) -> None:
    """Not even of what really refers: the schema wants an image index, and the tag may be anybody's."""
    fake.quirks.no_referrers = True
    subject = stocked(fake, 10)
    tag = f"sha256-{subject.digest.hex}"
    with client() as made:
        repo = repository(made, fake.name)
        good = image(repo, 20, tag="", subject=subject.to_json())
        document = {"schemaVersion": 2, **inside, "manifests": [good.to_json()]}
        taken = fake.add_manifest("some/repo", announced, strictjson.dumps(document), tag)
        assert list(repo.referrers(subject)) == []
        with pytest.raises(RegistryError, match="no list of referrers"):
            image(repo, 10, tag="", subject=subject.to_json())
    assert fake.tags["some/repo"][tag] == taken


@pytest.mark.parametrize("announced", [mediatypes.OCI_INDEX, "application/json"])
def test_rc_24_a_list_of_referrers_need_not_say_its_type_itself(fake: FakeRegistry, announced: str) -> None:
    fake.quirks.no_referrers = True
    subject = stocked(fake, 10)
    with client() as made:
        repo = repository(made, fake.name)
        first = image(repo, 20, tag="", subject=subject.to_json())
        document = strictjson.dumps({"schemaVersion": 2, "manifests": [first.to_json()]})
        fake.add_manifest("some/repo", announced, document, f"sha256-{subject.digest.hex}")
        second = image(repo, 10, tag="", subject=subject.to_json())
        assert list(repo.referrers(subject)) == [first, second]


def test_rc_24_a_taken_tag_is_reported_not_overwritten(fake: FakeRegistry) -> None:
    fake.quirks.no_referrers = True
    subject = stocked(fake, 10)
    tag = f"sha256-{subject.digest.hex}"
    fake.tags["some/repo"][tag] = str(subject.digest)
    with client() as made, pytest.raises(RegistryError, match="no list of referrers"):
        image(repository(made, fake.name), 10, tag="", subject=subject.to_json())
    assert fake.tags["some/repo"][tag] == str(subject.digest)


def test_a_schema_1_manifest_is_called_what_it_is(fake: FakeRegistry) -> None:
    fake.add_manifest("some/repo", "application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}", "v1")
    with client() as made, pytest.raises(Unsupported, match="schema 1"):
        repository(made, fake.name).resolve("v1")


@pytest.mark.parametrize("media_type", ["text/html; charset=utf-8", "application/vnd.example.new+json"])
def test_a_page_in_place_of_a_manifest_is_no_image(fake: FakeRegistry, media_type: str) -> None:
    """As portals and proxies answer, with 200, from whom nobody has bought or logged in."""
    fake.add_manifest("some/repo", media_type, b"<html>Please log in</html>", "v1")
    with client() as made, pytest.raises(RegistryError, match="and no manifest") as caught:
        copy(repository(made, fake.name), MemoryStore(), "v1")
    assert "proxy" in caught.value.hint


def test_a_manifest_of_a_type_that_nobody_knows_is_copied_as_it_is(fake: FakeRegistry) -> None:
    store, content = MemoryStore(), b'{"new": "format"}'
    fake.add_manifest("some/repo", "application/vnd.example.new+json", content, "v1")
    with client() as made:
        desc = copy(repository(made, fake.name), store, "v1")
    assert read_verified(store, desc) == content


def test_a_manifest_that_is_another_is_not_pushed(fake: FakeRegistry) -> None:
    promised = Descriptor.of(mediatypes.OCI_MANIFEST, b'{"a":1}')
    with client() as made:
        repo = repository(made, fake.name)
        with pytest.raises(IntegrityError):
            repo.push(promised, BytesIO(b'{"b":1}'))
        with pytest.raises(IntegrityError):
            repo.publish(promised, BytesIO(b'{"b":1}'), "v1")
    assert not fake.asked("PUT")


def test_a_push_that_lies_is_not_completed(fake: FakeRegistry) -> None:
    promised = Descriptor.of(mediatypes.OCI_LAYER, b"x" * 3_000_000)
    with client() as made, pytest.raises(IntegrityError):
        repository(made, fake.name).push(promised, BytesIO(b"y" * 3_000_000))
    assert not fake.blobs
    assert fake.asked("DELETE", "/uploads/")
    with client() as made, pytest.raises(NotFound):
        copy(repository(made, fake.name), memory_image(), "v9")
