"""Networks and servers that fail: each test is one row F-… of the fault matrix."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from contextlib import ExitStack
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from support.registry_certificates import Authority
from support.registry_fake import Cut, FakeRegistry, Request, Response, always, error, on
from support.registry_faults import FaultProxy, Faults, closed_port, name_of
from support.registry_images import client, layers_of, memory_image, put, repository, stocked

from ocitool import mediatypes
from ocitool.content import read_verified
from ocitool.errors import IntegrityError, NotFound, OciError, RegistryError, Unauthorized, Unreachable
from ocitool.events import Event, Retrying
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.registry.sockets import Pace
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.registry_tokens import TokenServer

SIZE = 12_000_000
USER = {"username": "user", "password": "secret-password"}


def blob_of(registry: FakeRegistry) -> Descriptor:
    return Descriptor.of(mediatypes.OCI_LAYER, layers_of(registry)[0])


@pytest.fixture
def proxied(fake: FakeRegistry) -> Iterator[Callable[[Faults], FaultProxy]]:
    """Puts a proxy with faults before the fake registry."""
    with ExitStack() as stack:
        yield lambda faults: stack.enter_context(FaultProxy((fake.host, fake.port), faults).running())


def read(registry: str, desc: Descriptor, offset: int = 0, **config: Any) -> bytes:
    with client(**config) as made, repository(made, registry).fetch(desc, offset=offset) as reader:
        parts = []
        while part := reader.read(1 << 20):
            parts.append(part)
        return b"".join(parts)


# The first connection is the question whether https is spoken.
@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("at", [0, 1, SIZE // 2, SIZE - 1])
def test_f_01_a_connection_lost_at_any_byte_is_resumed(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy], how: str, at: int
) -> None:
    stocked(fake, SIZE)
    proxy = proxied(Faults(lambda number: at + 300 if number == 1 else None, how))
    assert read(proxy.name, blob_of(fake), ranges=1) == layers_of(fake)[0]
    assert proxy.passed <= 1.1 * SIZE + 2000


def test_f_01_a_reset_at_every_tenth_costs_little(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    """Every connection breaks after a tenth of the blob: ten failures, twice the tries of one call."""
    stocked(fake, SIZE)
    proxy = proxied(Faults(lambda number: SIZE // 10 + 300 if number else None, "reset"))
    assert read(proxy.name, blob_of(fake), ranges=1) == layers_of(fake)[0]
    assert proxy.connections >= 10
    assert proxy.passed <= 1.1 * SIZE


def test_f_01_a_connection_that_never_gets_anywhere_ends_it(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    stocked(fake, SIZE)
    proxy = proxied(Faults(lambda number: 1000 if number else None, "reset"))
    with pytest.raises(Unreachable) as caught:
        read(proxy.name, blob_of(fake))
    assert caught.value.temporary
    assert proxy.connections < 20


@pytest.mark.parametrize("form", ["length", "no length", "chunked"])
def test_f_02_an_early_end_is_found_out_and_resumed(fake: FakeRegistry, form: str) -> None:
    stocked(fake, 300_000)
    content = layers_of(fake)[0]

    def cut(request: Request) -> Iterator[bytes]:
        start = int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        piece = content[start : start + 100_000]
        yield b"%x\r\n%s\r\n" % (len(piece), piece) if form == "chunked" else piece

    def answer(request: Request) -> Response:
        start = int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        headers = {"Accept-Ranges": "bytes"}
        if form == "length":
            headers["Content-Length"] = str(len(content) - start)
        if form == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers["Connection"] = "close"
        return Response(206 if start else 200, headers, cut(request))

    fake.before.append(always("GET", "/blobs/", answer))
    assert read(fake.name, blob_of(fake)) == content
    assert len(fake.asked("GET", "/blobs/")) == 3


def test_f_03_flipped_bytes_are_fetched_once_more_and_then_refused(fake: FakeRegistry) -> None:
    stocked(fake, 100_000)
    content = layers_of(fake)[0]
    flipped = bytes([content[0] ^ 1]) + content[1:]
    desc = blob_of(fake)
    pattern = f"/blobs/{desc.digest}"
    fake.before.append(on("GET", pattern, Response(200, {}, flipped)))
    store = MemoryStore()
    with client() as made:
        copy(repository(made, fake.name), store, "v1")
    assert read_verified(store, desc) == content
    fake.before.append(always("GET", pattern, lambda _: Response(200, {}, flipped)))
    with client() as made, pytest.raises(IntegrityError, match=str(desc.digest)) as caught:
        copy(repository(made, fake.name), MemoryStore(), "v1")
    assert caught.value.exit_code == 13
    assert f"the bytes came from {fake.url}" in caught.value.__notes__


def test_f_04_a_stalled_connection_is_given_up_and_resumed(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    stocked(fake, SIZE)
    proxy = proxied(Faults(lambda number: SIZE * 76 // 100 if number == 1 else None, "stall"))
    pace = Pace(idle=2, minimum_rate=0)
    assert read(proxy.name, blob_of(fake), pace=pace, ranges=1) == layers_of(fake)[0]
    assert proxy.passed <= 1.1 * SIZE


def test_f_05_a_header_that_drips_runs_out_of_time(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    stocked(fake, 10)
    proxy = proxied(Faults(drip=0.3))
    started = time.monotonic()
    pace = Pace(answer=0.5, minimum_rate=0)
    with (
        client(pace=pace, retries=2, plain_http=True) as made,
        pytest.raises(Unreachable, match="not answered in full"),
    ):
        repository(made, proxy.name).resolve("v1")
    assert time.monotonic() - started < 30  # what is sent takes longer


def test_f_05_a_body_that_drips_is_too_slow(fake: FakeRegistry) -> None:
    stocked(fake, 1000)

    def drip(_: Request) -> Response:
        def body() -> Iterator[bytes]:
            while True:
                yield b"x"
                time.sleep(0.05)

        return Response(200, {"Content-Length": "1000"}, body())

    fake.before.append(always("GET", "/blobs/", drip))
    pace = Pace(idle=0.5, minimum_rate=1000)
    started = time.monotonic()
    with pytest.raises(Unreachable, match="bytes per second"):
        read(fake.name, blob_of(fake), pace=pace, retries=2)
    assert time.monotonic() - started < 30  # what is sent takes longer


def test_f_05_closing_the_client_ends_every_wait(fake: FakeRegistry) -> None:
    """What an interrupt does: nobody waits for a server that says nothing."""
    stocked(fake, 1000)
    silent, over = threading.Event(), threading.Event()

    def silence() -> Iterator[bytes]:
        yield b"x"
        silent.set()
        over.wait()

    fake.before.append(
        always("GET", "/blobs/", lambda _: Response(200, {"Content-Length": "1000"}, silence()))
    )
    failed: list[BaseException] = []
    made = client(pace=Pace(idle=600))

    def wait() -> None:
        with pytest.raises(Unreachable) as caught:
            read_verified(repository(made, fake.name), blob_of(fake))
        failed.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        assert silent.wait(60)
        time.sleep(0.3)  # by now it waits, or it finds the client closed
        made.close()
        thread.join(60)
        assert failed
    finally:
        over.set()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 499, 522, 429])
def test_f_06_a_server_that_stumbles_is_asked_again(fake: FakeRegistry, status: int) -> None:
    stocked(fake, 10)
    events: list[Event] = []
    fake.before.append(on("GET", "/manifests/", *[error(status)] * 3))
    with client(on_event=events.append) as made:
        repository(made, fake.name).resolve("v1")
    delays = [event.delay for event in events if isinstance(event, Retrying)]
    assert len(delays) == 3
    for attempt, delay in enumerate(delays):
        assert 0.005 * 2**attempt <= delay <= 0.01 * 2**attempt


@pytest.mark.parametrize("status", [500, 502, 503])
def test_f_06_a_server_that_stays_down_is_given_up(fake: FakeRegistry, status: int) -> None:
    fake.before.append(always("GET", "", lambda _: error(status)))
    with client() as made, pytest.raises(RegistryError) as caught:
        repository(made, fake.name).resolve("v1")
    assert caught.value.temporary
    assert caught.value.status == status
    assert len(fake.log) == 5


@pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 501])
def test_f_06_what_will_not_pass_is_not_repeated(fake: FakeRegistry, status: int) -> None:
    fake.before.append(always("GET", "", lambda _: error(status)))
    with client() as made, pytest.raises(OciError):
        repository(made, fake.name).resolve("v1")
    assert len(fake.log) == 1


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "1"}, 1, 1),
        ({"Retry-After": "0.25"}, 0.25, 0.25),
        ({"Retry-After": "the date"}, 1, 50),
        ({"X-Retry-After": "the time"}, 1, 50),
        ({"Retry-After": "-5"}, 0, 0.01),
        ({"Retry-After": "soon"}, 0, 0.01),
        ({}, 0, 0.01),
    ],
)
def test_f_07_the_wait_is_as_long_as_the_registry_asks(
    fake: FakeRegistry,
    headers: dict[str, str],
    least: float,
    most: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stocked(fake, 10)
    pauses: list[float] = []
    then = time.time() + 50
    dates = {"the date": formatdate(then, usegmt=True), "the time": str(int(then))}
    told = {name: dates.get(value, value) for name, value in headers.items()}
    fake.before.append(on("GET", "", Response(429, told)))
    with client() as made:
        monkeypatch.setattr(made._transport, "pause", pauses.append)
        repository(made, fake.name).resolve("v1")
    assert len(pauses) == 1
    assert least <= pauses[0] <= most


@pytest.mark.parametrize("value", ["3600", "in two hours", "299999999"])
def test_f_07_nobody_waits_for_an_hour(fake: FakeRegistry, value: str) -> None:
    value = str(int(time.time()) + 7200) if value == "in two hours" else value
    fake.before.append(always("GET", "", lambda _: Response(429, {"Retry-After": value})))
    with client() as made, pytest.raises(RegistryError, match="asks to wait") as caught:
        repository(made, fake.name).resolve("v1")
    assert "minutes" in caught.value.hint
    assert len(fake.log) == 1


def test_f_08_a_token_that_ends_before_its_time_is_renewed_in_the_middle(
    fake: FakeRegistry, token_server: TokenServer
) -> None:
    stocked(fake, *[1000] * 5)
    token_server.protects(fake)
    with client(USER) as made:
        repo = repository(made, fake.name)
        for number, content in enumerate(layers_of(fake)):
            if number in {2, 4}:
                token_server.issued.clear()
            read_verified(repo, Descriptor.of(mediatypes.OCI_LAYER, content))
    assert len(token_server.log) == 3


def test_f_08_a_refusal_that_never_ends_ends(fake: FakeRegistry, token_server: TokenServer) -> None:
    fake.before.append(
        always(
            "", "", lambda _: Response(401, {"WWW-Authenticate": token_server.challenge("repository:x:pull")})
        )
    )
    with client(USER) as made, pytest.raises(Unauthorized):
        repository(made, fake.name).resolve("v1")
    assert len(fake.log) == 3
    assert len(token_server.log) == 2


def test_f_09_a_resume_asks_the_registry_again_not_the_storage(fake: FakeRegistry) -> None:
    stocked(fake, SIZE)
    desc = blob_of(fake)
    content = layers_of(fake)[0]
    with FakeRegistry().running() as storage:
        signatures = iter(range(100))
        fake.before.append(
            always(
                "GET",
                "/blobs/",
                lambda _: Response(307, {"Location": f"{storage.url}/b?sig={next(signatures)}"}),
            )
        )
        used: list[str] = []

        def serve(request: Request) -> Response:
            if request.first("sig") in used:
                return Response(403)
            used.append(request.first("sig"))
            response = storage.ranged(request, content, {})
            assert isinstance(response.body, bytes)
            response.headers["Content-Length"] = str(len(response.body))
            response.body = iter([response.body[: SIZE // 3]])
            response.headers["Connection"] = "close"
            return response

        storage.before.append(serve)
        assert read(fake.name, desc, ranges=1) == content
        assert used == [str(i) for i in range(len(used))]


def test_f_10_a_missing_blob_is_named_and_not_asked_for_again(fake: FakeRegistry) -> None:
    stocked(fake, 1000)
    desc = blob_of(fake)
    del fake.blobs["some/repo"][str(desc.digest)]
    with client() as made, pytest.raises(NotFound, match=f"{desc.digest} of {fake.name}/some/repo"):
        copy(repository(made, fake.name), MemoryStore(), "v1")
    assert len(fake.asked("GET", f"/blobs/{desc.digest}")) == 1


def test_f_11_a_name_that_is_none_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        calls.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with client() as made, pytest.raises(Unreachable, match="can't be resolved"):
        repository(made, "registry.example").resolve("v1")
    assert len(calls) == 1


def test_f_11_a_resolver_that_stumbles_is_asked_again(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(fake, 10)
    ask, left = socket.getaddrinfo, [1, 2]

    def resolve(*args: Any, **more: Any) -> Any:
        if left:
            left.pop()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ask(*args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with client(plain_http=True) as made:
        repository(made, fake.name).resolve("v1")


def test_f_11_an_address_that_is_a_black_hole_costs_a_quarter_of_a_second(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(fake, 10)
    # A listener whose queue is full answers nobody.
    with ExitStack() as stack:
        stack.enter_context(socket.create_server(("127.0.0.2", fake.port), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", fake.port))
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda *_, **__: [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, fake.port))
                for address in ("127.0.0.2", "127.0.0.1")
            ],
        )
        started = time.monotonic()
        with client(plain_http=True) as made:
            repository(made, fake.name).resolve("v1")
        assert time.monotonic() - started < 10  # to connect there takes 15


@pytest.mark.parametrize("fault", ["certificate", "stall"])
def test_f_12_tls_that_fails_is_explained_and_never_left(tmp_path: Path, fault: str) -> None:
    context = Authority().server_context(tmp_path)
    with ExitStack() as stack:
        fake = stack.enter_context(FakeRegistry(context).running())
        name, words, tries = fake.name, "certificate", 1
        if fault == "stall":
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            name, words, tries = f"127.0.0.1:{listener.getsockname()[1]}", "TLS handshake", 2
        events: list[Event] = []
        pace = Pace(connect=0.3 if fault == "stall" else 10)
        made = stack.enter_context(client(retries=2, pace=pace, on_event=events.append))
        with pytest.raises(Unreachable, match=words):
            repository(made, name).resolve("v1")
        assert len(events) == tries - 1
        assert not fake.log


def test_f_13_a_registry_that_comes_up_late_is_waited_for(fake: FakeRegistry) -> None:
    stocked(fake, 10)
    with ExitStack() as stack:
        port = stack.enter_context(closed_port())

        def start(event: Event) -> None:
            if isinstance(event, Retrying) and not started:
                started.append(event)
                proxy = FaultProxy((fake.host, fake.port))
                proxy._listener.close()
                proxy._listener = port.dup()
                proxy._listener.listen()
                stack.enter_context(proxy.running())

        started: list[Event] = []
        with client(on_event=start, retry_delay=0.1) as made:
            repository(made, name_of(port)).resolve("v1")
        assert started


def lose(fake: FakeRegistry, method: str, pattern: str) -> list[Request]:
    """Once, do what is asked, and hang up instead of saying so."""
    lost: list[Request] = []

    def hook(request: Request) -> Response | None:
        if lost:
            return None
        lost.append(request)
        fake.honest(request)
        raise Cut

    fake.before.append(always(method, pattern, hook))
    return lost


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        ("POST", "/uploads/"),
        ("PATCH", "/uploads/"),
        ("PUT", "/uploads/"),
        ("PUT", "/manifests/"),
        ("HEAD", "/blobs/"),
    ],
)
@pytest.mark.parametrize("chunk_size", [0, 1_000_000])
def test_f_14_a_lost_answer_does_no_harm(
    fake: FakeRegistry, method: str, pattern: str, chunk_size: int
) -> None:
    lost = lose(fake, method, pattern)
    source = memory_image(3_000_000)
    with client(chunk_size=chunk_size) as made:
        copy(source, repository(made, fake.name), "v1")
    assert lost or (method == "PATCH" and not chunk_size)
    assert fake.blobs["some/repo"].keys() | fake.manifests["some/repo"].keys() == {
        str(digest) for digest in source._content
    }


@pytest.mark.parametrize("chunk_size", [0, 1_000_000])
@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_f_14_a_blob_that_was_stored_is_not_sent_again(
    fake: FakeRegistry, size: int, chunk_size: int
) -> None:
    lost = lose(fake, "PUT", "/uploads/")
    with client(chunk_size=chunk_size) as made:
        put(repository(made, fake.name), mediatypes.OCI_LAYER, b"x" * size)
    assert lost
    assert len(fake.asked("POST", "/uploads/")) == 1


def test_f_14_a_blob_whose_end_was_lost_before_it_was_stored_is_sent_again(fake: FakeRegistry) -> None:
    fake.before.append(on("PUT", "/uploads/", *[error(503)] * 5))
    source = memory_image(3_000_000)
    with client() as made:
        copy(source, repository(made, fake.name), "v1")
    assert fake.blobs["some/repo"].keys() | fake.manifests["some/repo"].keys() == {
        str(digest) for digest in source._content
    }


def test_f_14_a_lost_answer_to_a_delete_is_no_failure(fake: FakeRegistry) -> None:
    desc = stocked(fake, 10)
    lost = lose(fake, "DELETE", "/manifests/")
    with client() as made:
        repository(made, fake.name).delete(desc)
    assert lost


def test_f_21_expiry_is_judged_by_the_monotonic_clock(
    fake: FakeRegistry, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(fake, 1000)
    token_server.protects(fake)
    with client(USER) as made:
        repo = repository(made, fake.name)
        repo.resolve("v1")
        for years in (-10, 10):
            now = time.time() + years * 31_556_952
            monkeypatch.setattr(time, "time", lambda now=now: now)
            assert repo.exists(blob_of(fake))
    assert len(token_server.log) == 1


def test_f_27_a_proxy_is_used_and_gets_no_credentials_but_its_own(fake: FakeRegistry) -> None:
    stocked(fake, 10)
    with FakeRegistry().running() as proxy:
        proxy.before.append(always("", "", _forwarding(fake)))
        environ = {"http_proxy": f"http://me:proxy-password@{proxy.name}", "HOME": "/nonexistent"}
        with client(USER, environ=environ, plain_http=True) as made:
            # Loopback is never proxied, so the name is one that only the proxy knows.
            repository(made, "registry.example:80").resolve("v1")
        assert {request.headers["proxy-authorization"] for request in proxy.log} == {
            "Basic bWU6cHJveHktcGFzc3dvcmQ="
        }
        assert all("proxy-authorization" not in request.headers for request in fake.log)


def _forwarding(fake: FakeRegistry) -> Callable[[Request], Response]:
    def forward(request: Request) -> Response:
        kept = {key: value for key, value in request.headers.items() if key != "proxy-authorization"}
        return fake.answer(Request(request.method, request.path, request.query, kept, request.body))

    return forward


def test_f_27_a_proxy_that_refuses_is_named(fake: FakeRegistry) -> None:
    with FakeRegistry().running() as proxy:
        proxy.before.append(always("CONNECT", "", lambda _: Response(407)))
        environ = {"HTTPS_PROXY": proxy.url, "HOME": "/nonexistent"}
        with (
            client(environ=environ) as made,
            pytest.raises((Unreachable, RegistryError), match=r"proxy|501|407"),
        ):
            repository(made, "registry.example").resolve("v1")
    assert not fake.log


def test_f_28_a_connection_that_was_closed_while_idle_is_replaced(fake: FakeRegistry) -> None:
    stocked(fake, 10)
    with client() as made:
        repo = repository(made, fake.name)
        repo.resolve("v1")
        fake._server.hang_up()
        repo.tags()
        fake._server.hang_up()
        put(repo, mediatypes.OCI_LAYER, b"x" * 2_000_000)


def test_f_29_an_early_answer_ends_the_sending(fake: FakeRegistry) -> None:
    fake.quirks.max_body = 5_000_000
    sent = 0

    class Source:
        def __init__(self) -> None:
            self.left = 200_000_000

        def read(self, n: int = -1, /) -> bytes:
            nonlocal sent
            n = min(n, self.left)
            self.left -= n
            sent += n
            return bytes(n)

    desc = Descriptor(mediatypes.OCI_LAYER, Descriptor.of("", b"").digest, 200_000_000)
    with client() as made, pytest.raises(RegistryError) as caught:
        repository(made, fake.name).push(desc, Source())
    assert caught.value.status == 413
    assert sent < 60_000_000


def test_f_29_a_blob_that_is_too_large_for_one_request_goes_in_chunks(fake: FakeRegistry) -> None:
    """What a web server before the registry allows may be less than a layer."""
    fake.quirks.max_body = 17_000_000
    source = memory_image(20_000_000)
    with client() as made:
        copy(source, repository(made, fake.name), "v1")
    assert len(fake.asked("PATCH")) == 2


@pytest.mark.parametrize("broken", ["stale", "wrong", "404", "500", "down"])
def test_f_31_a_mirror_that_is_of_no_use_is_passed_over(
    fake: FakeRegistry, tmp_path: Path, broken: str
) -> None:
    desc = stocked(fake, 100_000)
    with FakeRegistry().running() as mirror, closed_port() as port:
        name = mirror.name
        if broken == "stale":
            stocked(mirror, 10)
        elif broken == "wrong":
            mirror.before.append(lambda _: Response(200, {"Content-Type": mediatypes.OCI_INDEX}, b"x" * 100))
        elif broken in {"404", "500"}:
            mirror.before.append(lambda _: error(int(broken)))
        else:
            name = name_of(port)
        (tmp_path / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{fake.name}"\n[[registry.mirror]]\nlocation = "{name}"\n'
        )
        store = MemoryStore()
        events: list[Event] = []
        conf = tmp_path / "registries.conf"
        with client(registries_conf=conf, retries=2, on_event=events.append) as made:
            copy(repository(made, fake.name), store, str(desc.digest), to="v1")
        assert store.resolve("v1") == desc
        if broken == "down":
            assert len([event for event in events if isinstance(event, Retrying)]) == 1


def test_a_resume_reads_only_what_is_missing(fake: FakeRegistry) -> None:
    """What a layout has kept of an earlier run is not fetched again."""
    stocked(fake, SIZE)
    desc, content = blob_of(fake), layers_of(fake)[0]
    before = fake.sent
    assert read(fake.name, desc, offset=SIZE * 3 // 4) == content[SIZE * 3 // 4 :]
    assert fake.sent - before == SIZE // 4
    assert read(fake.name, desc, offset=SIZE) == b""


def test_the_end_of_an_upload_may_take_longer_than_other_answers(fake: FakeRegistry) -> None:
    def slowly(_: Request) -> None:
        time.sleep(1)

    fake.before.append(always("PUT", "/uploads/", slowly))
    with client(pace=Pace(answer=0.5, commit=10)) as made:
        put(repository(made, fake.name), mediatypes.OCI_LAYER, b"x" * 2_000_000)
    fake.before.append(always("PUT", "/manifests/", slowly))
    with client(pace=Pace(answer=0.5, commit=10), retries=1) as made, pytest.raises(Unreachable):
        copy(memory_image(), repository(made, fake.name), "v1")


def test_a_slow_blob_behind_a_redirect_is_fetched_from_where_it_is(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    """The registry is asked once, not for every range; when the place is gone, it is asked again."""
    size = 60_000_000
    stocked(fake, size)
    desc, content = blob_of(fake), layers_of(fake)[0]
    with (
        FakeRegistry().running() as storage,
        FaultProxy((storage.host, storage.port), Faults(rate=20e6)).running() as slow,
    ):
        fake.quirks.redirect_blobs = f"http://{slow.name}"
        refused: list[Request] = []
        numbers = itertools.count(1)

        def serve(request: Request) -> Response:
            if next(numbers) == 4:
                refused.append(request)
                return Response(403)
            return storage.ranged(request, content, {})

        storage.before.append(serve)
        assert read(fake.name, desc, ranges=4) == content
        assert refused
        assert len(storage.log) > 8
        assert len(fake.asked("GET", "/blobs/")) < len(storage.log) - 2


@pytest.mark.parametrize("honest", [True, False])
def test_a_slow_blob_comes_over_several_connections(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy], *, honest: bool
) -> None:
    size = 60_000_000
    stocked(fake, size)
    desc, content = blob_of(fake), layers_of(fake)[0]
    if not honest:
        # Says that it knows ranges, and sends the whole blob all the same, once.
        fake.before.append(
            always(
                "GET",
                "/blobs/",
                lambda request: (
                    Response(200, {"Accept-Ranges": "bytes"}, content)
                    if not request.headers.get("range", "").endswith("-")
                    else None
                ),
            )
        )
    rate = 3e6 if honest else 20e6
    proxy = proxied(Faults(rate=rate))
    started = time.monotonic()
    assert read(proxy.name, desc, ranges=5) == content
    took = time.monotonic() - started
    if honest:
        assert took < size / rate  # what one connection alone would take
        assert proxy.passed < 1.2 * size
        assert len({request.headers.get("range") for request in fake.asked("GET", "/blobs/")}) >= 4


def test_a_slow_blob_whose_ranges_do_not_end_is_read_to_their_last_byte(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    stocked(fake, 40_000_000)
    desc, content = blob_of(fake), layers_of(fake)[0]
    endless: list[str] = []

    def serve(request: Request) -> Response | None:
        asked = request.headers.get("range", "-")
        if asked.endswith("-"):
            return None
        endless.append(asked)
        honest = fake.ranged(request, content, {})
        assert isinstance(honest.body, bytes)
        return Response(206, honest.headers, itertools.chain([honest.body], itertools.repeat(bytes(1 << 20))))

    fake.before.append(always("GET", "/blobs/", serve))
    assert read(proxied(Faults(rate=20e6)).name, desc, ranges=5) == content
    assert endless


@pytest.mark.parametrize(
    ("moved", "longer", "words"),
    [(-1, 0, "asked for the bytes"), (1, 0, "asked for the bytes"), (0, 1, "its descriptor promises")],
)
def test_a_slow_blob_is_not_joined_of_other_ranges_or_of_another_blobs(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy], moved: int, longer: int, words: str
) -> None:
    size = 40_000_000
    stocked(fake, size)
    desc, content = blob_of(fake), layers_of(fake)[0]

    def serve(request: Request) -> Response | None:
        first, _, last = request.headers.get("range", "bytes=-")[6:].partition("-")
        if not last:
            return None
        part = slice(int(first) + moved, int(last) + moved + 1)
        told = f"bytes {part.start}-{part.stop - 1}/{size + longer}"
        return Response(206, {"Content-Range": told}, content[part])

    fake.before.append(always("GET", "/blobs/", serve))
    with pytest.raises((RegistryError, IntegrityError), match=words):
        read(proxied(Faults(rate=20e6)).name, desc, ranges=5)


def test_a_slow_blob_that_breaks_off_in_its_ranges_is_resumed(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    size = 60_000_000
    stocked(fake, size)
    desc, content = blob_of(fake), layers_of(fake)[0]
    proxy = proxied(Faults(lambda number: 9_000_000 + number * 500_000 if number else None, rate=20e6))
    assert read(proxy.name, desc, ranges=5) == content


def test_a_reader_that_is_never_read_gives_its_connection_back(fake: FakeRegistry) -> None:
    stocked(fake, 1000)
    with client() as made:
        repo = repository(made, fake.name)
        for _ in range(5):
            with repo.fetch(blob_of(fake)):
                pass
        assert len(made._transport._connections._streams._open) <= 1


def test_a_reader_that_stops_early_leaves_nothing_behind(
    fake: FakeRegistry, proxied: Callable[[Faults], FaultProxy]
) -> None:
    stocked(fake, 60_000_000)
    proxy = proxied(Faults(rate=20e6))
    with client() as made:
        repo = repository(made, proxy.name)
        with repo.fetch(blob_of(fake)) as reader:
            read_bytes = 0
            while read_bytes < 25_000_000:
                read_bytes += len(reader.read(1 << 20))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ocitool-range")]
        assert repo._ranges.acquire(blocking=False)


def test_f_05_a_token_service_that_never_answers_is_asked_as_often_as_any_server(fake: FakeRegistry) -> None:
    """Not as often as that for each try of the request that needs the token."""
    stocked(fake, 10)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        realm = f"http://127.0.0.1:{silent.getsockname()[1]}/token"
        challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}
        fake.before.append(lambda _: Response(401, challenge, b"{}"))
        events: list[Event] = []
        pace = Pace(answer=1)
        with client(retries=3, pace=pace, on_event=events.append) as made, pytest.raises(Unreachable):
            repository(made, fake.name).resolve("v1")
    assert len([event for event in events if isinstance(event, Retrying)]) == 2
