"""The server as a process that others lean on: stopping, TLS, limits, lost connections, many clients."""

from __future__ import annotations

import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from support import fixtures
from support.serve_registry import (
    MemoryRepositories,
    codes,
    digest_of,
    layout_repositories,
    registry,
)
from support.serve_tls import certificate
from support.waiting import until

from ocitool.errors import Conflict, InvalidContent, NotFound, RegistryError
from ocitool.model import Descriptor
from ocitool.serve import FixedRepositories, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocitool.streams import Reader


class Faulty:
    """A source of one blob, whose reading a test decides on."""

    def __init__(self, size: int, read: Callable[[int], bytes]) -> None:
        self.desc = Descriptor.of("application/octet-stream", b"x" * 10)
        self.desc = Descriptor(self.desc.media_type, self.desc.digest, size)
        self._read = read
        self.closed = threading.Event()

    def resolve(self, ref: str, /) -> Descriptor:
        if ref != str(self.desc.digest):
            raise NotFound(f"there is no {ref}")
        return self.desc

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        try:
            yield self
        finally:
            self.closed.set()

    def read(self, n: int = -1, /) -> bytes:
        return self._read(n)


def test_a_port_that_is_taken_is_a_conflict() -> None:
    with Server(MemoryRepositories()) as first:
        port = int(first.address.rpartition(":")[2])
        with (
            pytest.raises(Conflict, match=f"can't listen on 127.0.0.1:{port}"),
            Server(MemoryRepositories(), port=port),
        ):
            pass


def test_an_address_that_is_none_is_a_conflict() -> None:
    with (
        pytest.raises(Conflict, match="is not an address"),
        Server(MemoryRepositories(), host="no such host"),
    ):
        pass


def test_it_listens_on_ipv6() -> None:
    with Server(MemoryRepositories(), host="::1") as server:
        assert server.address.startswith("[::1]:")
        assert httpx.get(f"{server.url}/v2/", timeout=60).status_code == 200


def test_it_speaks_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "certs")
    with Server(MemoryRepositories(), tls_cert=cert, tls_key=key) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(cert))
        assert httpx.get(f"{server.url}/v2/", verify=trusting, timeout=60).status_code == 200


def test_a_certificate_that_is_none_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("not a certificate")
    with (
        pytest.raises(InvalidContent, match="can't be used"),
        Server(MemoryRepositories(), tls_cert=tmp_path / "cert.pem"),
    ):
        pass


def test_requests_under_way_end_before_the_server_does() -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(n: int) -> bytes:
        asked.set()
        go.wait(60)
        return b"y" * min(n, 10)

    source = Faulty(10, slow)
    with ThreadPoolExecutor(1) as pool:
        with Server(FixedRepositories({"a": source})) as server:
            response = pool.submit(httpx.get, f"{server.url}/v2/a/blobs/{source.desc.digest}", timeout=60)
            assert asked.wait(60)
            threading.Timer(0.3, go.set).start()
        assert response.result().content == b"y" * 10


@contextmanager
def _command(*before: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`serve` in a process of its own; the process, and its HOST:PORT."""
    script = (
        "import sys; from pathlib import Path\n"
        "from ocitool.layout import LayoutStore\n"
        "from ocitool.layout.repositories import LayoutRepositories\n"
        "from ocitool.serve import serve\n"
        "store = LayoutStore(Path(sys.argv[1]), create=False)\n"
        "serve(LayoutRepositories(store), '127.0.0.1', 0, on_ready=lambda a: print(a, flush=True))\n"
    )
    command = [*before, sys.executable, "-c", script, str(fixtures.layout())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_on_a_signal_with_success(number: signal.Signals) -> None:
    with _command() as (process, address):
        assert httpx.get(f"http://{address}/v2/hello/tags/list", timeout=60).json()["tags"] == ["1.0"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_a_low_limit_of_open_files_is_raised() -> None:
    with _command("bash", "-c", 'ulimit -Sn 64; exec "$@"', "bash") as (_, address), ExitStack() as stack:
        host, _, port = address.rpartition(":")
        for _ in range(200):
            stack.enter_context(socket.create_connection((host, int(port))))
        assert httpx.get(f"http://{address}/v2/hello/tags/list", timeout=60).json()["tags"] == ["1.0"]


def test_a_blob_that_ends_early_breaks_the_answer_off() -> None:
    left = [b"12345", b""]
    source = Faulty(10, lambda _: left.pop(0))
    with registry(FixedRepositories({"a": source})) as served:
        with pytest.raises(httpx.RemoteProtocolError):
            served.http.get(f"/v2/a/blobs/{source.desc.digest}")
        until(lambda: served.served)
        assert "ended 5 bytes early" in str(served.served[0].failure)
        assert source.closed.wait(60)


def test_a_source_that_fails_on_the_way_breaks_the_answer_off() -> None:
    def read(n: int) -> bytes:
        if n < 6 << 20:
            raise OSError(5, "Input/output error")
        return b""

    source = Faulty(5 << 20, read)
    with registry(FixedRepositories({"a": source})) as served:
        with pytest.raises(httpx.RemoteProtocolError):
            served.http.get(f"/v2/a/blobs/{source.desc.digest}")
        until(lambda: served.served)
        assert isinstance(served.served[0].failure, OSError)
        assert source.closed.wait(60)
        assert served.http.get("/v2/").status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("gone"), 404, "BLOB_UNKNOWN"),
        (RegistryError("too many", status=429, temporary=True), 429, "TOOMANYREQUESTS"),
        (RegistryError("try later", status=500, temporary=True), 503, "UNKNOWN"),
        (RegistryError("odd", status=418), 502, "UNKNOWN"),
        (InvalidContent("broken"), 500, "UNKNOWN"),
        (ValueError("a bug, with a secret"), 500, "UNKNOWN"),
    ],
)
def test_every_failure_of_a_source_is_an_answer(error: Exception, status: int, code: str) -> None:
    class Failing(Faulty):
        def resolve(self, ref: str, /) -> Descriptor:
            raise error

    source = Failing(10, lambda _: b"")
    with registry(FixedRepositories({"a": source})) as served:
        response = served.http.get(f"/v2/a/blobs/{source.desc.digest}")
        assert (response.status_code, codes(response)) == (status, [code])
        assert "secret" not in response.text
        until(lambda: served.served)
        assert served.served[0].failure is (None if status == 404 else error)


def test_what_is_only_a_source_can_not_be_pushed_to() -> None:
    with registry(FixedRepositories({"a": Faulty(10, lambda _: b"")})) as served:
        assert served.http.post("/v2/a/blobs/uploads/").status_code == 405
        assert served.http.post("/v2/b/blobs/uploads/").status_code == 404


def test_a_client_that_goes_away_ends_the_reading_of_a_blob() -> None:
    size = 1 << 30
    source = Faulty(size, lambda n: b"z" * n)
    with registry(FixedRepositories({"a": source})) as served:
        with served.http.stream("GET", f"/v2/a/blobs/{source.desc.digest}") as response:
            next(response.iter_raw())
        assert source.closed.wait(60)
        until(lambda: served.served)
        assert served.served[0].sent < size
        assert served.served[0].status == 499


def test_an_upload_that_was_cut_off_goes_on_from_where_it_stopped(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    with registry(layout_repositories(tmp_path / "served")) as served:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        host, _, port = served.server.address.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content[: 2 << 20])
            time.sleep(0.2)
        until(lambda: served.http.get(location).headers["range"] == f"0-{(2 << 20) - 1}")
        rest = content[2 << 20 :]
        headers = {"content-range": f"{2 << 20}-{len(content) - 1}"}
        assert served.http.patch(location, content=rest, headers=headers).status_code == 202
        done = served.http.put(location, params={"digest": digest_of(content)})
        assert done.status_code == 201
        assert served.http.get(done.headers["location"]).content == content


def test_a_body_that_stalls_is_a_408() -> None:
    with registry(MemoryRepositories(), idle_seconds=0.2) as served:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        host, _, port = served.server.address.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert served.http.get(location).headers["range"] == "0-4"


@pytest.mark.parametrize("sent", [b"", b"GET /v2/ HTTP/1.1\r\nHost:"])
def test_a_client_that_does_not_finish_its_request_is_let_go(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocitool.serve.connections.HEAD_SECONDS", 0.2)
    with registry(MemoryRepositories()) as served:
        host, _, port = served.server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(sent)
            assert connection.recv(100) == b""


def test_a_client_that_rests_between_requests_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not httpx, which would make another connection.
    with (
        registry(MemoryRepositories()) as served,
        closing(HTTPConnection(served.server.address, timeout=60)) as http,
    ):
        for pause in (0, 0, 0.4):
            time.sleep(pause)
            http.request("GET", "/v2/")
            response = http.getresponse()
            assert (response.status, response.read()) == (200, b"{}")
            # The connection itself was made while there was time enough, however busy the machine is.
            monkeypatch.setattr("ocitool.serve.connections.HEAD_SECONDS", 0.2)


def test_one_client_too_many_is_a_503() -> None:
    with registry(MemoryRepositories(), connections=3) as served, ExitStack() as stack:
        locations = [served.http.post("/v2/a/blobs/uploads/").headers["location"] for _ in range(2)]
        host, _, port = served.server.address.rpartition(":")
        for location in locations:
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            head = "Host: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            connection.sendall(f"PATCH {location} HTTP/1.1\r\n{head}".encode())
            # Until its request is read, a client is one that rests, and makes room for the next.
            assert b" 100 " in connection.recv(100)
        assert served.http.get("/v2/").status_code == 503
        stack.close()
        until(lambda: served.http.get("/v2/").status_code == 200)


def test_a_client_that_waits_is_told_to_go_on_only_where_it_may() -> None:
    head = "PATCH {} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with registry(MemoryRepositories()) as served:
        host, _, port = served.server.address.rpartition(":")
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(head.format(location).encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"01234")
            assert connection.recv(100).startswith(b"HTTP/1.1 202 ")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(head.format(f"{location}x").encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 404 ")


def test_a_blob_larger_than_the_limit_is_a_413() -> None:
    with registry(MemoryRepositories(), blob_bytes=100) as served:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        assert served.http.patch(location, content=b"x" * 101).status_code == 413
        served.push_blob("a", b"x" * 100)


def test_too_many_uploads_at_once_are_a_429() -> None:
    with registry(MemoryRepositories(), uploads=2) as served:
        locations = [served.http.post("/v2/a/blobs/uploads/").headers["location"] for _ in range(2)]
        refused = served.http.post("/v2/a/blobs/uploads/")
        assert (refused.status_code, codes(refused)) == (429, ["TOOMANYREQUESTS"])
        served.http.delete(locations[0])
        assert served.http.post("/v2/a/blobs/uploads/").status_code == 202


def test_an_upload_that_has_ended_well_or_badly_makes_room_for_the_next_one() -> None:
    with registry(MemoryRepositories(), uploads=1) as served:
        for digest, status in [(digest_of(b"x"), 201), (digest_of(b"y"), 400)] * 2:
            whole = served.http.post("/v2/a/blobs/uploads/", params={"digest": digest}, content=b"x")
            assert whole.status_code == status
            location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
            assert served.http.put(location, params={"digest": digest}, content=b"x").status_code == status


def test_an_upload_that_rests_too_long_is_forgotten() -> None:
    with registry(MemoryRepositories(), upload_seconds=0.1) as served:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        time.sleep(0.15)
        served.http.post("/v2/a/blobs/uploads/")
        assert served.http.get(location).status_code == 404


class Full(io.FileIO):
    """A file on a disk with little room."""

    room = 10

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        if not self.room:
            raise OSError(28, "No space left on device")
        written = super().write(data[: self.room])
        self.room -= written
        return written


def test_an_upload_that_finds_no_room_says_so_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Full(tmp_path / "spooled", "w+")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: file)
    with registry(MemoryRepositories()) as served:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        assert served.http.patch(location, content=b"01234").status_code == 202
        response = served.http.patch(location, content=b"56789abcdef")
        assert response.status_code == 507
        assert "No space left" in response.text
        assert served.http.get(location).headers["range"] == "0-4"
        file.room = 100
        assert served.http.patch(location, content=b"567").status_code == 202
        assert served.http.put(location, params={"digest": digest_of(b"01234567")}).status_code == 201


def test_an_upload_to_a_full_layout_says_so_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [10]
    write = os.write

    def limited(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = write(fd, data[: room[0]])
        room[0] -= written
        return written

    with registry(layout_repositories(tmp_path / "served")) as served:
        with monkeypatch.context() as patched:
            patched.setattr("ocitool.layout.files.os.write", limited)
            location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
            assert served.http.patch(location, content=b"01234").status_code == 202
            response = served.http.patch(location, content=b"56789abcdef")
            assert response.status_code == 507
            assert "No space left" in response.text
        assert served.http.get(location).headers["range"] == "0-4"
        assert served.http.patch(location, content=b"567").status_code == 202
        assert served.http.put(location, params={"digest": digest_of(b"01234567")}).status_code == 201


def test_an_upload_leaves_nothing_behind_but_the_blob(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served")) as served:
        served.push_blob("a", b"kept")
        served.push_blob("a", b"kept")
        cancelled = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        served.http.patch(cancelled, content=b"cancelled")
        served.http.delete(cancelled)
        wrong = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        assert served.http.put(wrong, params={"digest": digest_of(b"x")}, content=b"y").status_code == 400
        unfinished = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        served.http.patch(unfinished, content=b"unfinished")
        private = tmp_path / "served" / ".ocitool" / "partial"
        assert len(list(private.iterdir())) == 1
    assert list(private.iterdir()) == []
    blobs = tmp_path / "served" / "blobs" / "sha256"
    assert [path.read_bytes() for path in blobs.iterdir()] == [b"kept"]


def test_a_blob_of_another_algorithm_is_verified_as_well(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served")) as served:
        for promised, delivered, status in ((b"a", b"b", 400), (b"a", b"a", 201)):
            location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
            query = {"digest": digest_of(promised, "sha512")}
            assert served.http.put(location, params=query, content=delivered).status_code == status


def test_every_request_is_told_of() -> None:
    with registry(MemoryRepositories()) as served:
        served.push_blob("a", b"12345")
        served.http.get(f"/v2/a/blobs/{digest_of(b'12345')}", headers={"user-agent": "me/1"})
        until(lambda: len(served.served) == 3)
        begun, put, got = served.served
        assert (begun.method, begun.route, begun.status) == ("POST", "upload", 202)
        assert (put.method, put.route, put.status, put.received) == ("PUT", "upload", 201, 5)
        assert (got.method, got.route, got.status, got.sent) == ("GET", "blob", 200, 5)
        assert (got.agent, got.client, got.user) == ("me/1", "127.0.0.1", "")
        assert 0 < got.seconds < 10


def test_no_path_misleads_a_log() -> None:
    with registry(MemoryRepositories()) as served:
        served.http.get("/v2/a%0aGET /x%1b[2J/tags/list")
    assert served.served[0].path == "/v2/a%0AGET%20/x%1B%5B2J/tags/list"


def test_figures_are_served_for_prometheus() -> None:
    with registry(MemoryRepositories()) as served:
        served.push_blob("a", b"12345")
        served.http.get("/no/such/path")
        figures = served.http.get("/metrics")
        assert figures.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = figures.text.splitlines()
        assert 'ocitool_requests_total{method="PUT",route="upload",status="201"} 1' in lines
        assert 'ocitool_requests_total{method="GET",route="other",status="404"} 1' in lines
        assert "ocitool_received_bytes_total 5" in lines
        assert "ocitool_requests_in_flight 1" in lines
        assert "ocitool_request_seconds_count 3" in lines
    with registry(MemoryRepositories(), metrics=False) as served:
        assert served.http.get("/metrics").status_code == 404


@pytest.fixture(params=["pieces", "kernel"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which a blob is sent."""
    monkeypatch.setattr("ocitool.serve.streaming.FILES", 1000 if request.param == "kernel" else 0)
    return str(request.param)


def test_a_blob_is_whole_in_either_way(way: str, tmp_path: Path) -> None:
    content = os.urandom(9 << 20)
    with registry(layout_repositories(tmp_path / "served")) as served:
        digest = served.push_blob("a", content)
        small = served.push_blob("a", b"small")
        for _ in range(2):  # on one connection
            assert served.http.get(f"/v2/a/blobs/{digest}").content == content
            part = served.http.get(f"/v2/a/blobs/{digest}", headers={"range": "bytes=1000-5000000"})
            assert part.content == content[1000:5_000_001]
            assert served.http.get(f"/v2/a/blobs/{small}").content == b"small"
            assert served.http.head(f"/v2/a/blobs/{digest}").headers["content-length"] == str(len(content))
    assert {one.failure for one in served.served} == {None}
    assert max(one.sent for one in served.served) == len(content), way


def test_a_blob_that_shrinks_meanwhile_breaks_the_answer_off(way: str, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 30  # more than sockets hold
    with registry(layout_repositories(tmp_path / "served")) as served:
        digest = served.push_blob("a", content)
        path = tmp_path / "served" / "blobs" / "sha256" / digest.removeprefix("sha256:")
        with served.http.stream("GET", f"/v2/a/blobs/{digest}") as response:
            os.truncate(path, 25 << 20)
            with pytest.raises(httpx.RemoteProtocolError):
                response.read()
    assert "bytes early" in str(served.served[-1].failure), way


def test_a_client_that_goes_away_is_noticed_in_either_way(way: str, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 30
    with registry(layout_repositories(tmp_path / "served")) as served:
        digest = served.push_blob("a", content)
        with served.http.stream("GET", f"/v2/a/blobs/{digest}") as response:
            next(response.iter_raw())
        assert served.http.get(f"/v2/a/blobs/{digest}").content == content
    assert [one.status for one in served.served if one.method == "GET"] == [499, 200], way


def test_a_client_that_takes_nothing_any_more_is_let_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ocitool.serve.sendfile.STALLED_SECONDS", 0.2)
    with registry(layout_repositories(tmp_path / "served")) as served:
        digest = served.push_blob("a", os.urandom(1 << 20) * 30)
        host, _, port = served.server.address.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until(lambda: [one for one in served.served if one.method == "GET"])
    assert served.served[-1].status == 499


def test_a_server_that_is_in_a_hurry_cuts_off_who_is_slow(tmp_path: Path) -> None:
    repositories = layout_repositories(tmp_path / "served")
    with registry(repositories) as served:
        digest = served.push_blob("a", os.urandom(1 << 20) * 30)
    with Server(repositories, grace_seconds=1) as server:
        server_host, _, port = server.address.rpartition(":")
        repositories.open("a", create=True)
        connection = socket.create_connection((server_host, int(port)))
        connection.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
    assert time.monotonic() - started < 10
    connection.close()


def test_two_hundred_clients_at_once_are_all_served(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    with registry(layout_repositories(tmp_path / "served")) as served:
        digest = served.push_blob("a", content)
        together = threading.Barrier(200)

        def pull(_: int) -> bool:
            with closing(HTTPConnection(served.server.address, timeout=120)) as http:
                together.wait(60)
                http.request("GET", f"/v2/a/blobs/{digest}")
                response = http.getresponse()
                return response.status == 200 and response.read() == content

        with ThreadPoolExecutor(200) as pool:
            assert all(pool.map(pull, range(200)))


def test_two_clients_push_one_blob_at_the_same_time(tmp_path: Path) -> None:
    content = os.urandom(5 << 20)
    with registry(layout_repositories(tmp_path / "served")) as served:

        def push(_: int) -> str:
            return served.push_blob("a", content)

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(push, range(8)))) == 1
        assert served.http.get(f"/v2/a/blobs/{digest_of(content)}").content == content


def test_what_is_no_http_harms_nobody() -> None:
    with registry(MemoryRepositories()) as served:
        host, _, port = served.server.address.rpartition(":")
        for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\0" * 100_000):
            # It need not read all of that before it closes the connection.
            with socket.create_connection((host, int(port))) as connection, suppress(OSError):
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1000)
        assert served.http.get("/v2/").status_code == 200
