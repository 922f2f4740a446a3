"""What real registries do: each test is one row RR-…, against a server that does the same."""

from __future__ import annotations

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from support.registry_fake import FakeRegistry, Request, Response, always, error, on
from support.registry_images import client, image, layers_of, memory_image, put, repository, stocked

from ocitool import limits, mediatypes, strictjson
from ocitool.content import read_verified
from ocitool.errors import (
    IntegrityError,
    NotFound,
    OciError,
    RegistryError,
    Unauthorized,
    UnsafeContent,
    Unsupported,
)
from ocitool.events import Event, Finished, Noted, Retrying
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.reference import Reference
from ocitool.registry.origins import Origin
from ocitool.transfer import copy

if TYPE_CHECKING:
    from pathlib import Path

    from support.registry_tokens import TokenServer

USER = {"username": "user", "password": "secret-password"}
BASIC = "Basic " + base64.b64encode(b"user:secret-password").decode()


def blob_of(registry: FakeRegistry) -> Descriptor:
    return Descriptor.of(mediatypes.OCI_LAYER, layers_of(registry)[0])


def pull(registry: FakeRegistry, **config: Any) -> MemoryStore:
    store = MemoryStore()
    with client(**config) as made:
        copy(repository(made, registry.name), store, "v1")
    return store


def push(registry: FakeRegistry, *sizes: int, **config: Any) -> Descriptor:
    with client(**config) as made:
        return copy(memory_image(*(sizes or (2_000_000,))), repository(made, registry.name), "v1")


def basic_gate(request: Request) -> Response | None:
    return None if request.authorization == BASIC else Response(401, {"WWW-Authenticate": "Basic realm=r"})


def test_rr_01_tokens_come_from_another_host(fake: FakeRegistry, token_server: TokenServer) -> None:
    stocked(fake, 1000)
    token_server.protects(fake)
    pull(fake, config=USER)
    # The whole pull needs one token, and no request but the first goes without.
    assert len(token_server.log) == 1
    assert [request.authorization == "" for request in fake.log].count(True) == 1


@pytest.mark.parametrize(
    "fields",
    [
        ['Basic realm="b", BEARER'],
        ['Negotiate, Basic realm="b", BEARER'],
        ["Negotiate dG9rZW4=", 'Basic realm="b"', "BEARER"],
        ["BEARER, Basic realm=b"],
        ['Digest realm="d", nonce="a,b\\"c", qop="auth", BEARER'],
        [",, ,BEARER,"],
    ],
)
def test_rr_02_of_several_challenges_bearer_is_taken(
    fake: FakeRegistry, token_server: TokenServer, fields: list[str]
) -> None:
    stocked(fake, 10)

    def gate(request: Request) -> Response | None:
        refused = token_server.gate(request)
        if refused:
            bearer = refused.headers.pop("WWW-Authenticate")
            refused.extra = [("WWW-Authenticate", field.replace("BEARER", bearer)) for field in fields]
        return refused

    fake.before.append(gate)
    pull(fake, config=USER)
    assert token_server.log


def test_rr_02_basic_where_nothing_else_is_known(fake: FakeRegistry) -> None:
    stocked(fake, 10)

    def gate(request: Request) -> Response | None:
        if request.authorization == BASIC:
            return None
        return Response(
            401, extra=[("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", 'Basic realm="b"')]
        )

    fake.before.append(gate)
    pull(fake, config=USER)


def test_rr_03_a_password_is_asked_for_where_tokens_are_used_elsewhere(
    fake: FakeRegistry, token_server: TokenServer
) -> None:
    stocked(fake, 10)
    fake.before += [
        lambda request: basic_gate(request) if request.path == "/v2/_catalog" else token_server.gate(request)
    ]
    with client(USER) as made:
        repo = repository(made, fake.name)
        repo.resolve("v1")
        assert list(made.catalog(fake.name)) == ["some/repo"]
        repo.tags()
    # The token of before is still the way for everything else.
    assert len(token_server.log) <= 2


def test_rr_04_a_refusal_without_challenge_is_met_with_what_is_known(
    fake: FakeRegistry, token_server: TokenServer
) -> None:
    stocked(fake, 10)

    def gate(request: Request) -> Response | None:
        refused = token_server.gate(request)
        return Response(401) if refused and "manifests" not in request.path else refused

    fake.before.append(gate)
    with client(USER) as made:
        repo = repository(made, fake.name)
        repo.resolve("v1")
        token_server.issued.clear()
        assert repo.exists(blob_of(fake))


def test_rr_04_a_refusal_without_challenge_from_the_start_asks_the_front_door(
    fake: FakeRegistry, token_server: TokenServer
) -> None:
    stocked(fake, 10)

    def gate(request: Request) -> Response | None:
        if request.path == "/v2/":
            return Response(401, {"WWW-Authenticate": token_server.challenge("")})
        return Response(401) if token_server.gate(request) else None

    fake.before.append(gate)
    pull(fake, config=USER)


@pytest.mark.parametrize("status", [404, 401, 400, 405])
def test_rr_05_a_token_service_without_post_is_asked_by_get(
    fake: FakeRegistry, token_server: TokenServer, tmp_path: Path, status: int
) -> None:
    stocked(fake, 10)
    token_server.protects(fake)
    token_server.post_status = status
    auth = base64.b64encode(b"user:secret-password").decode()
    (tmp_path / "auth.json").write_text(
        f'{{"auths":{{"{fake.name}":{{"auth":"{auth}","identitytoken":"x"}}}}}}'
    )
    pull(fake, authfile=tmp_path / "auth.json")
    assert [request.method for request in token_server.log] == ["POST", "GET"]


@pytest.mark.parametrize("key_name", ["token", "access_token"])
def test_rr_06_an_identity_token_is_exchanged(
    fake: FakeRegistry, token_server: TokenServer, tmp_path: Path, key_name: str
) -> None:
    stocked(fake, 10)
    token_server.protects(fake)
    token_server.key_name = key_name
    (tmp_path / "auth.json").write_text(
        f'{{"auths":{{"{fake.name}":{{"identitytoken":"{token_server.refresh}"}}}}}}'
    )
    pull(fake, authfile=tmp_path / "auth.json")
    (request,) = token_server.log
    form = request.body.decode()
    assert request.method == "POST"
    assert "grant_type=refresh_token" in form
    assert "client_id=" in form
    assert "scope=repository%3Asome%2Frepo%3Apull" in form


def test_rr_07_the_scope_that_is_needed_comes_first(fake: FakeRegistry, token_server: TokenServer) -> None:
    """Some token services honour only the first scope; then the mount fails and the upload works."""
    desc = stocked(fake, 1000, name="from/repo")
    token_server.deny = lambda scope: "from/repo" in scope and len(token_server.log) > 1
    token_server.protects(fake)
    fake.before.insert(
        0,
        always(
            "POST",
            "/uploads/",
            lambda request: (
                Response(401, {"WWW-Authenticate": token_server.challenge("repository:to/repo:pull,push")})
                if request.first("from")
                else None
            ),
        ),
    )
    with client(USER) as made:
        source, target = repository(made, fake.name, "from/repo"), repository(made, fake.name, "to/repo")
        copy(source, target, "v1")
        assert target.exists(desc)
    asked = [request.query["scope"] for request in token_server.log]
    assert all(scopes[0].startswith("repository:to/repo") for scopes in asked if len(scopes) > 1)


def test_rr_08_a_token_that_runs_out_on_the_way_is_replaced(
    fake: FakeRegistry, token_server: TokenServer
) -> None:
    stocked(fake, 1000)
    token_server.protects(fake)
    token_server.told_life = None
    with client(USER) as made:
        repo = repository(made, fake.name)
        repo.resolve("v1")
        token_server.issued.clear()
        assert repo.exists(blob_of(fake))
    assert len(token_server.log) == 2


def test_rr_08_a_long_upload_whose_token_runs_out_starts_again(
    fake: FakeRegistry, token_server: TokenServer
) -> None:
    token_server.protects(fake)
    lost: list[int] = []

    def forget(request: Request) -> Response | None:
        if request.method == "PUT" and "/uploads/" in request.path and not lost:
            lost.append(1)
            token_server.issued.clear()
        return None

    fake.before.insert(0, forget)
    push(fake, 3_000_000, config=USER)
    assert lost
    assert len(fake.asked("PUT", "/uploads/")) >= 2


def test_rr_09_a_token_that_is_too_new_is_shown_again(
    fake: FakeRegistry, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(fake, 10)
    pauses: list[float] = []
    first: list[str] = []

    def gate(request: Request) -> Response | None:
        refused = token_server.gate(request)
        if refused is None and not first:
            first.append(request.authorization)
            challenge = token_server.challenge("repository:some/repo:pull") + ',error="invalid_token"'
            return Response(401, {"WWW-Authenticate": challenge})
        return refused

    fake.before.append(gate)
    with client(USER) as made:
        monkeypatch.setattr(made._transport, "pause", pauses.append)
        repo = repository(made, fake.name)
        repo._repo.site.endpoint.auth._pause = pauses.append
        repo.resolve("v1")
    assert pauses == [1.0]
    assert len(token_server.log) == 1
    assert fake.log[-1].authorization == first[0]


def test_rr_10_the_servers_clock_has_no_say(fake: FakeRegistry) -> None:
    stocked(fake, 10)
    asked: list[str] = []

    def gate(request: Request) -> Response | None:
        if request.path == "/token":
            asked.append(request.path)
            old = '{"token":"t","expires_in":300,"issued_at":"1999-01-01T00:00:00Z"}'
            return Response(200, {"Date": "Fri, 01 Jan 1999 00:00:00 GMT"}, old.encode())
        if request.authorization == "Bearer t":
            return None
        return Response(401, {"WWW-Authenticate": 'Bearer realm="/token"'})

    fake.before.append(gate)
    pull(fake)
    assert len(asked) == 1


def test_rr_11_rr_12_a_password_goes_with_every_request_but_not_to_the_storage(fake: FakeRegistry) -> None:
    with FakeRegistry().running() as storage:
        stocked(fake, 1000)
        fake.before.append(basic_gate)
        fake.quirks.redirect_blobs = storage.url
        storage.before.append(
            lambda request: storage.ranged(
                request, fake.blobs["some/repo"][request.path.rpartition("/")[2]], {}
            )
        )
        pull(fake, config=USER)
        assert [request.authorization for request in fake.log] == ["", *[BASIC] * (len(fake.log) - 1)]
        # A storage refuses a signed URL that comes with an Authorization.
        assert {request.authorization for request in storage.log} == {""}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_blob_of_unknown_size_is_found_where_it_is_stored(fake: FakeRegistry, *, ranges: bool) -> None:
    with FakeRegistry().running() as storage:
        stocked(fake, 1000)
        desc = blob_of(fake)
        content = layers_of(fake)[0]
        storage.quirks.no_ranges = not ranges
        storage.before.append(always("GET", "", lambda request: storage.ranged(request, content, {})))
        with client() as made:
            repo = repository(made, fake.name)
            assert repo.find_blob(desc.digest).size == desc.size
            fake.quirks.redirect_blobs = storage.url
            assert repo.find_blob(desc.digest).size == desc.size
            assert not storage.asked("HEAD")
            with pytest.raises(NotFound):
                repository(made, fake.name, "other/repo").find_blob(desc.digest)


def test_rr_13_a_signature_that_ran_out_is_renewed_and_no_storage_is_asked_by_head(
    fake: FakeRegistry,
) -> None:
    with FakeRegistry().running() as storage:
        stocked(fake, 1000)
        desc = blob_of(fake)
        fake.quirks.redirect_blobs = storage.url
        content = layers_of(fake)[0]
        storage.before += [
            on("GET", "", Response(403, {}, b"expired")),
            always("GET", "", lambda request: storage.ranged(request, content, {})),
        ]
        with client() as made:
            repo = repository(made, fake.name)
            assert repo.exists(desc)
            assert not storage.log
            assert read_verified(repo, desc) == content
        assert len(fake.asked("GET", "/blobs/")) == 2
        assert not storage.asked("HEAD")


def test_rr_14_a_relative_redirect_is_followed(fake: FakeRegistry) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    content = layers_of(fake)[0]
    fake.before += [
        on("GET", "/blobs/", Response(302, {"Location": "../../../storage/x"})),
        always("GET", "/storage/", lambda request: fake.ranged(request, content, {})),
    ]
    with client() as made:
        assert read_verified(repository(made, fake.name), desc) == content


@pytest.mark.parametrize("form", ["", "http://{name}", "//{name}"])
def test_rr_15_upload_locations_may_be_relative_or_absolute(fake: FakeRegistry, form: str) -> None:
    fake.quirks.absolute_location = form.format(name=fake.name)
    push(fake)


@pytest.mark.parametrize(
    "location", ["http://host:1:2/v2/x", "http://[::1/x", "http://host:99999999/x", "ht tp://x"]
)
def test_rr_15_a_malformed_location_is_a_clear_error(fake: FakeRegistry, location: str) -> None:
    fake.before.append(on("POST", "/uploads/", Response(202, {"Location": location})))
    with pytest.raises(OciError):
        push(fake, retries=1)


def test_rr_16_every_location_is_used_once_and_keeps_its_query(fake: FakeRegistry) -> None:
    fake.quirks.location_query = True
    used: list[str] = []
    fake.before.append(
        always("", "/uploads/.+", lambda request: used.append(str(request.query.get("_state"))))
    )
    push(fake, 50_000, chunk_size=20_000)
    assert len(used) == len(set(used))
    assert all("=" in state for state in used)
    closing = [request for request in fake.asked("PUT", "/uploads/") if not request.body]
    assert len(closing) == 2
    assert all(set(request.query) == {"_state", "digest"} for request in closing)


def test_rr_17_no_cookie_is_ever_sent(fake: FakeRegistry) -> None:
    fake.before.append(always("", "", lambda request: _with_cookie(fake.honest(request))))
    push(fake)
    pull(fake)
    assert all("cookie" not in request.headers for request in fake.log)


def _with_cookie(response: Response) -> Response:
    response.headers["Set-Cookie"] = "sid=1; Path=/"
    return response


def test_rr_18_a_blob_goes_whole_where_chunks_are_not_known(fake: FakeRegistry) -> None:
    fake.quirks.no_patch = True
    push(fake)
    assert not fake.asked("PATCH")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_rr_19_rr_20_chunks_are_taken_with_any_success_and_a_range_that_never_moves(
    fake: FakeRegistry, status: int
) -> None:
    fake.quirks.patch_status = status
    fake.quirks.stuck_range = True
    push(fake, 50_000, chunk_size=20_000)
    assert len(fake.asked("PATCH")) == 3 + 1  # the layer, and the configuration


def test_rr_19_a_status_that_is_not_known_starts_the_blob_again(fake: FakeRegistry) -> None:
    fake.quirks.no_status = True
    fake.before.append(on("PATCH", "", None, error(503)))
    push(fake, 50_000, chunk_size=20_000)
    assert len(fake.asked("POST", "/uploads/")) == 2 + 1


def test_rr_21_an_upload_that_is_forgotten_starts_again(fake: FakeRegistry) -> None:
    fake.before.append(on("PATCH", "", None, error(404, "BLOB_UPLOAD_INVALID")))
    push(fake, 50_000, chunk_size=20_000)
    assert len(fake.asked("POST", "/uploads/")) == 2 + 1


def test_rr_22_chunks_are_as_large_as_the_registry_wants(fake: FakeRegistry) -> None:
    fake.quirks.chunk_min = 30_000
    push(fake, 100_000, chunk_size=1000)
    sizes = [len(request.body) for request in fake.asked("PATCH")]
    assert sorted(size for size in sizes if size > 1000) == [10_000, 30_000, 30_000, 30_000]


def test_rr_23_a_lost_chunk_is_continued_where_the_registry_is(fake: FakeRegistry) -> None:
    def half(request: Request) -> Response | None:
        if halved or request.method != "PATCH" or not request.headers["content-range"].startswith("20000"):
            return None
        halved.append(request)
        (id_,) = [id_ for id_ in fake.uploads if id_ in request.path]
        fake.uploads[id_] += request.body[:5000]
        return error(503)

    halved: list[Request] = []
    fake.before.append(half)
    push(fake, 50_000, chunk_size=20_000)
    ranges = [request.headers["content-range"] for request in fake.asked("PATCH")]
    assert "25000-39999" in ranges
    assert "40000-49999" in ranges


@pytest.mark.parametrize("told", ["0-9999", "0-49999", "bytes"])
def test_rr_23_a_registry_at_a_byte_where_it_can_not_be_gets_the_blob_anew(
    fake: FakeRegistry, told: str
) -> None:
    """Before what it has taken, beyond what it was sent, or nowhere."""
    # The last refusal ends a client that would otherwise send empty chunks for ever.
    fake.before.append(on("PATCH", "", None, error(503), *[None] * 8, error(400)))
    fake.before.append(on("GET", "/uploads/", Response(204, {"Range": told})))
    push(fake, 50_000, chunk_size=20_000)
    assert len(fake.asked("POST", "/uploads/")) == 2 + 1


def test_rr_23_a_registry_at_another_byte_is_asked_where_it_is(fake: FakeRegistry) -> None:
    fake.before.append(on("PATCH", "", None, Response(416)))
    push(fake, 50_000, chunk_size=20_000)
    assert fake.asked("GET", "/uploads/")


@pytest.mark.parametrize("status", [401, 403, 404, 405, 400, 500])
def test_rr_24_rr_37_a_mount_that_is_denied_is_an_upload(fake: FakeRegistry, status: int) -> None:
    stocked(fake, 1000, name="from/repo")
    fake.quirks.mount_status = status
    events: list[Event] = []
    with client(on_event=events.append) as made:
        copy(repository(made, fake.name, "from/repo"), repository(made, fake.name, "to/repo"), "v1")
    assert not [event for event in events if isinstance(event, Retrying)]
    assert fake.blobs["to/repo"] == fake.blobs["from/repo"]


def test_rr_24_a_mount_that_becomes_an_upload_is_used(fake: FakeRegistry) -> None:
    stocked(fake, 1000, name="from/repo")
    fake.quirks.mount = False
    with client() as made:
        copy(repository(made, fake.name, "from/repo"), repository(made, fake.name, "to/repo"), "v1")
    assert len(fake.asked("POST", "/to/repo/")) == 2  # one session for each blob


def test_rr_24_a_mount_may_be_hinted(fake: FakeRegistry) -> None:
    digest = fake.add_blob("base/image", b"x" * 1000)
    fake.add_blob("other/image", b"y" * 1000)
    hint = {f"containerd.io/distribution.source.{fake.name}": "gone/image,base/image"}
    hinted = Descriptor(mediatypes.OCI_LAYER, Descriptor.of("", b"x" * 1000).digest, 1000, annotations=hint)
    with client(mount_from=("other/image",)) as made:
        repo = repository(made, fake.name, "to/repo")
        assert repo.mount(hinted, MemoryStore())
        assert repo.mount(Descriptor.of(mediatypes.OCI_LAYER, b"y" * 1000), MemoryStore())
        assert not repo.mount(Descriptor.of(mediatypes.OCI_LAYER, b"z"), MemoryStore())
    assert digest in fake.blobs["to/repo"]


def test_rr_24_nothing_is_mounted_from_a_repository_of_another_registry(fake: FakeRegistry) -> None:
    """One of the same name may be there, with other rights."""
    with FakeRegistry().running() as other:
        stocked(other, 1000, name="from/repo")
        with client() as made:
            copy(repository(made, other.name, "from/repo"), repository(made, fake.name, "to/repo"), "v1")
    begun = fake.asked("POST", "/uploads/")
    assert begun
    assert not [request for request in begun if request.query]


def test_a_blob_of_another_size_is_not_the_one_that_is_asked_for(fake: FakeRegistry) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    with client() as made:
        repo = repository(made, fake.name)
        assert repo.exists(desc)
        assert not repo.exists(Descriptor(desc.media_type, desc.digest, desc.size + 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [("Content-Type", "text/html"), ("Content-Length", ""), ("Docker-Content-Digest", "sha256:0")],
)
def test_a_head_that_does_not_describe_a_manifest_is_followed_by_a_get(
    fake: FakeRegistry, field: str, value: str
) -> None:
    desc = stocked(fake, 10)
    honest = {
        "Content-Type": desc.media_type,
        "Content-Length": str(desc.size),
        "Docker-Content-Digest": str(desc.digest),
    }
    said = {key: text for key, text in {**honest, field: value}.items() if text}
    fake.before.append(always("HEAD", "/manifests/", lambda _: Response(200, said, ())))
    with client() as made:
        assert repository(made, fake.name).ask("v1") == desc
    assert fake.asked("GET", "/manifests/")


def test_rr_25_an_upload_that_can_not_be_cancelled_changes_nothing(fake: FakeRegistry) -> None:
    fake.before.append(always("DELETE", "/uploads/", lambda _: Response(401)))
    with client() as made, pytest.raises(IntegrityError):
        repository(made, fake.name).push(Descriptor.of(mediatypes.OCI_LAYER, b"x" * 3_000_000), BytesIO(b"y"))


@pytest.mark.parametrize("media_type", ["application/octet-stream", "application/json", "text/plain"])
def test_rr_26_a_manifest_without_digest_and_type_is_recognised(fake: FakeRegistry, media_type: str) -> None:
    desc = stocked(fake, 1000)
    fake.quirks.no_digest_header = True
    fake.quirks.manifest_type = media_type
    with client() as made:
        assert repository(made, fake.name).resolve("v1") == desc
    pull(fake)


def test_rr_27_a_registry_that_answers_no_question_about_blobs_gets_them(fake: FakeRegistry) -> None:
    fake.quirks.head_unauthorized = True
    push(fake)
    pull(fake)


def test_rr_39_a_registry_without_head_for_manifests_is_asked_by_get(fake: FakeRegistry) -> None:
    desc = stocked(fake, 10)
    fake.quirks.no_head = True
    with client() as made:
        repo = repository(made, fake.name)
        assert repo.exists(desc)
        assert not repo.exists(Descriptor.of(mediatypes.OCI_MANIFEST, b"{}"))


def test_rr_28_only_manifests_are_asked_for_by_their_types(fake: FakeRegistry) -> None:
    push(fake)
    with client() as made:
        repository(made, fake.name).tags()
    pull(fake)
    for request in fake.log:
        expected = 5 if "/manifests/" in request.path and request.method != "PUT" else 1
        assert len(request.headers["accept"].split(",")) == expected


def test_rr_29_one_accept_names_all_four_types(fake: FakeRegistry) -> None:
    stocked(fake, 10)
    pull(fake)
    (request,) = fake.asked("GET", "/manifests/")
    assert {item.strip() for item in request.headers["accept"].split(",")} > mediatypes.MANIFESTS


def test_rr_30_a_refused_manifest_shows_what_the_registry_says(fake: FakeRegistry) -> None:
    fake.before.append(
        always("PUT", "/manifests/", lambda _: error(415, "MANIFEST_INVALID", "no OCI, please"))
    )
    with pytest.raises(RegistryError, match="415 MANIFEST_INVALID: no OCI, please"):
        push(fake)


@pytest.mark.parametrize("status", [404, 401, 406, 400, 403, 405, 200])
def test_rr_31_without_the_api_referrers_are_kept_under_a_tag(fake: FakeRegistry, status: int) -> None:
    fake.quirks.no_referrers = True
    if status == 200:
        fake.before.append(always("GET", "/referrers/", lambda _: Response(200, {}, b"<html>hello</html>")))
    fake.quirks.referrers_status = status
    with client() as made:
        repo = repository(made, fake.name)
        subject = image(repo, 10)
        first = image(repo, 20, tag="", subject=subject.to_json(), annotations={"k": "v"})
        second = image(repo, 30, tag="", subject=subject.to_json())
        put(repo, mediatypes.OCI_MANIFEST, fake.manifests["some/repo"][str(first.digest)][1])
        assert list(repo.referrers(subject)) == [first, second]
        assert f"sha256-{subject.digest.hex}" in repo.tags()
        repo.delete(first)
        assert list(repo.referrers(subject)) == [second]


def test_rr_31_referrers_come_in_pages(fake: FakeRegistry) -> None:
    with client() as made:
        repo = repository(made, fake.name)
        subject = image(repo, 10)
        pushed = [image(repo, size, tag="", subject=subject.to_json()) for size in (20, 30)]

        def page(request: Request) -> Response:
            response = fake.honest(request)
            assert isinstance(response.body, bytes)
            index = strictjson.load_object(response.body, "index")
            at = int(request.first("at") or 0)
            index["manifests"] = index["manifests"][at : at + 1]
            response.body = strictjson.dumps(index)
            if at == 0:
                response.headers["Link"] = f'<{request.path}?at=1>; rel="next"'
            return response

        fake.before.append(always("GET", "/referrers/", page))
        assert sorted(repo.referrers(subject), key=str) == sorted(pushed, key=str)


@pytest.mark.parametrize("absolute", [True, False])
def test_rr_32_tags_come_in_pages(fake: FakeRegistry, *, absolute: bool) -> None:
    desc = stocked(fake, 10)
    for i in range(25):
        fake.tags["some/repo"][f"t{i:02}"] = str(desc.digest)
    fake.quirks.page = 10
    if absolute:

        def link(request: Request) -> Response:
            response = fake.honest(request)
            if "Link" in response.headers:
                response.headers["Link"] = response.headers["Link"].replace("</", f"<{fake.url}/")
            return response

        fake.before.append(always("GET", "/tags/", link))
    with client() as made:
        assert list(repository(made, fake.name).tags()) == [*(f"t{i:02}" for i in range(25)), "v1"]
    assert len(fake.asked("GET", "/tags/")) == 3
    assert int(fake.log[-1].first("n") or 0) <= 1000


def test_rr_32_no_tags_may_be_null(fake: FakeRegistry) -> None:
    fake.manifests["some/repo"] = {}
    fake.quirks.tags_null = True
    with client() as made:
        assert list(repository(made, fake.name).tags()) == []


def test_rr_33_a_used_up_quota_is_said_and_not_hammered(fake: FakeRegistry) -> None:
    headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
    fake.before.append(
        always("", "", lambda _: Response(429, headers, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'))
    )
    with client() as made:
        with pytest.raises(RegistryError, match="TOOMANYREQUESTS"):
            repository(made, fake.name).resolve("v1")
        quota = made.rate_limit(fake.name)
    assert quota is not None
    assert (quota.limit, quota.remaining, quota.window) == (100, 0, 21600)
    assert len(fake.log) == 1


def test_rr_33_docker_hub_is_asked_before_it_is_read(fake: FakeRegistry) -> None:
    desc = stocked(fake, 10, name="library/debian")
    with client() as made:
        repo = made.repository(Reference.parse("debian"))
        repo._repo.site.endpoint._candidates = (Origin.parse("http", fake.name),)
        assert repo.resolve("v1") == desc
    assert [request.method for request in fake.log] == ["HEAD"]


def test_threads_that_begin_together_find_out_once_that_no_tls_is_spoken(fake: FakeRegistry) -> None:
    stocked(fake, 10)
    threads = 8
    together = threading.Barrier(threads)

    def resolve(_: int) -> Descriptor:
        together.wait(60)
        return repository(made, fake.name).resolve("v1")

    with client() as made, ThreadPoolExecutor(threads) as pool:
        assert len(set(pool.map(resolve, range(threads)))) == 1
    # Each has a connection of its own at most; the one that was tried with TLS is one more.
    assert fake.connections <= threads + 1


def test_rr_34_a_manifest_that_is_too_large_for_the_registry_is_an_error(fake: FakeRegistry) -> None:
    fake.before.append(always("PUT", "/manifests/", lambda _: error(413)))
    with pytest.raises(RegistryError, match="413"):
        push(fake)


def test_rr_34_a_manifest_that_no_registry_need_take_is_refused_before_its_blobs_are_sent(
    fake: FakeRegistry,
) -> None:
    store = MemoryStore()
    config, layer = put(store, mediatypes.OCI_EMPTY, b"{}"), put(store, mediatypes.OCI_LAYER, b"layer")
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json()],
        "annotations": {"long": "x" * limits.MANIFEST_BYTES},
    }
    store.tag(put(store, mediatypes.OCI_MANIFEST, strictjson.dumps(manifest)), "v1")
    with client() as made, pytest.raises(UnsafeContent, match="at most"):
        copy(store, repository(made, fake.name), "v1")
    assert not [request for request in fake.log if request.method not in {"GET", "HEAD"}]


def test_rr_35_a_registry_that_deletes_nothing_is_called_so(fake: FakeRegistry) -> None:
    desc = stocked(fake, 1000)
    fake.quirks.no_delete = True
    with client() as made:
        repo = repository(made, fake.name)
        with pytest.raises(Unsupported, match="does not delete"):
            repo.delete(desc)
        with pytest.raises(Unsupported, match="does not delete"):
            repo.delete(blob_of(fake))
        with pytest.raises(Unsupported, match="does not delete"):
            repo.untag("v1")


def test_rr_35_a_name_is_removed_without_the_content(fake: FakeRegistry) -> None:
    desc = stocked(fake, 10)
    with client() as made:
        repo = repository(made, fake.name)
        repo.tag(desc, "v2")
        repo.untag("v1")
        assert list(repo.tags()) == ["v2"]
        assert repo.resolve("v2") == desc
        with pytest.raises(NotFound):
            repo.untag("v1")


def test_rr_36_a_replica_that_is_late_is_waited_for(fake: FakeRegistry) -> None:
    events: list[Event] = []
    fake.before.append(on("PUT", "/manifests/", *[error(404, "MANIFEST_BLOB_UNKNOWN")] * 2))
    push(fake, on_event=events.append)
    assert len([event for event in events if isinstance(event, Retrying)]) == 2


@pytest.mark.parametrize("urls", [{}, {"urls": ["https://example.test/layer"]}], ids=["nowhere", "urls"])
def test_rr_40_a_registry_that_takes_no_layers_from_elsewhere_is_not_hammered_and_named_a_way(
    open_registry: str, urls: dict[str, Any]
) -> None:
    """docker-registry answers 500 with MANIFEST_BLOB_UNKNOWN where the URLs are not allowed, else 400."""
    foreign = Descriptor.of(mediatypes.OCI_LAYER_NONDISTRIBUTABLE, b"elsewhere")
    source = MemoryStore()
    desc = image(source, 10, tag="")
    manifest = strictjson.loads(read_verified(source, desc), "manifest")
    manifest["layers"].append({**foreign.to_json(), **urls})
    source.tag(put(source, mediatypes.OCI_MANIFEST, strictjson.dumps(manifest)), "v1")
    events: list[Event] = []
    with client(on_event=events.append) as made, pytest.raises(RegistryError) as caught:
        copy(source, repository(made, open_registry), "v1")
    assert "MANIFEST_BLOB_UNKNOWN" in caught.value.codes
    assert "administrator has to allow" in caught.value.hint
    assert not caught.value.temporary
    assert len([event for event in events if isinstance(event, Retrying)]) == 3


def test_rr_38_a_warning_is_told_once(fake: FakeRegistry) -> None:
    stocked(fake, 10)

    def warn(request: Request) -> Response:
        response = fake.honest(request)
        response.extra = [("Warning", '299 - "this registry closes"'), ("Warning", '199 - "not ours"')]
        return response

    fake.before.append(warn)
    events: list[Event] = []
    pull(fake, on_event=events.append)
    assert [event.message for event in events if isinstance(event, Noted)] == [
        f"{fake.name}: this registry closes"
    ]


def test_a_pull_takes_no_more_round_trips_than_it_must(fake: FakeRegistry, token_server: TokenServer) -> None:
    """Challenge, token, manifest, then everything else side by side."""
    stocked(fake, *[1000] * 20)
    token_server.protects(fake)
    moments: list[tuple[str, str]] = []
    for server in (fake, token_server.server):
        server.before.insert(0, lambda request: moments.append((request.method, request.path)))
    pull(fake, config=USER)
    kinds = ["manifest" if "manifests" in p else "token" if p == "/token" else "blob" for _, p in moments]
    assert kinds[:3] == ["manifest", "token", "manifest"]
    assert kinds[3:] == ["blob"] * 21


def test_connections_are_used_again(fake: FakeRegistry, token_server: TokenServer) -> None:
    """Questions, refusals and redirects do not cost the connection that they came over."""
    token_server.protects(fake)
    source = memory_image(1000, 2000, 3000)
    with client(USER) as made:
        repo = repository(made, fake.name)
        copy(source, repo, "v1", jobs=1)
        copy(repo, MemoryStore(), "v1", jobs=1)
    assert len(fake.log) > 20
    # The first was only the question whether https is spoken.
    assert fake.connections == 2
    assert token_server.server.connections == 1


def test_http_on_this_machine_needs_nobodys_certificates(fake: FakeRegistry) -> None:
    desc = stocked(fake, 10)
    environ = {"HOME": "/nonexistent", "SSL_CERT_FILE": "/nonexistent"}
    with client(environ=environ) as made:
        assert repository(made, fake.name).resolve("v1") == desc


def test_one_token_is_fetched_for_many_threads(fake: FakeRegistry, token_server: TokenServer) -> None:
    stocked(fake, *[1000] * 8)
    token_server.protects(fake)
    with client(USER) as made:
        repo = repository(made, fake.name)
        blobs = [Descriptor.of(mediatypes.OCI_LAYER, content) for content in layers_of(fake)]
        threads = [threading.Thread(target=read_verified, args=(repo, desc)) for desc in blobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(token_server.log) == 1


def test_credentials_of_the_command_line_are_for_every_registry_that_was_named(fake: FakeRegistry) -> None:
    with FakeRegistry().running() as other:
        for registry in (fake, other):
            stocked(registry, 10)
            registry.before.append(basic_gate)
        with client(USER) as made:
            repository(made, fake.name).resolve("v1")
            repository(made, other.name).resolve("v1")


def test_without_the_right_password_it_says_so(fake: FakeRegistry, token_server: TokenServer) -> None:
    token_server.protects(fake)
    with client({**USER, "password": "wrong"}) as made, pytest.raises(Unauthorized) as caught:
        repository(made, fake.name).resolve("v1")
    assert caught.value.exit_code == 11
    assert caught.value.hint.endswith(f"ocitool login {fake.name}")  # and not at the token service


def test_rr_02_a_way_to_prove_who_we_are_that_we_do_not_have_is_named(fake: FakeRegistry) -> None:
    fake.before.append(lambda _: Response(401, {"WWW-Authenticate": "Negotiate"}))
    with client(USER) as made, pytest.raises(Unauthorized) as caught:
        repository(made, fake.name).resolve("v1")
    assert "negotiate" in caught.value.hint


def test_a_second_copy_moves_nothing(fake: FakeRegistry) -> None:
    source = memory_image(1000, 2000)
    events: list[Event] = []
    with client() as made:
        repo = repository(made, fake.name)
        copy(source, repo, "v1")
        started = time.monotonic()
        copy(source, repo, "v1", on_event=events.append)
        assert time.monotonic() - started < 5
    assert {event.how for event in events if isinstance(event, Finished)} == {"skipped"}
