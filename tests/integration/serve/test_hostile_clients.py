"""Clients that lie, stall, crowd and repeat themselves: they are answered or not, and harm nobody else."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from support.serve_registry import (
    MemoryRepositories,
    Registry,
    codes,
    digest_of,
    layout_repositories,
    registry,
)
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def served() -> Iterator[Registry]:
    with registry(MemoryRepositories()) as running:
        yield running


def _connected(served: Registry) -> socket.socket:
    host, _, port = served.server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def _answers(served: Registry, sent: bytes) -> list[bytes]:
    """The status lines that come back until the server closes the connection."""
    received = b""
    with _connected(served) as connection:
        connection.sendall(sent)
        while piece := connection.recv(1 << 16):
            received += piece
    return [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def _ends(connection: socket.socket) -> bool:
    """Read to the end; with a reset, where the server has not read all that was sent."""
    with suppress(ConnectionResetError):
        while connection.recv(1 << 16):
            pass
    return True  # a connection that goes on would have timed out


def test_a_body_whose_end_is_told_twice_is_refused_and_what_follows_is_no_request(served: Registry) -> None:
    smuggled = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n"
    told = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert _answers(served, head + told + smuggled) == [b"HTTP/1.1 400 Bad Request"]


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 4\r\nContent-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: +1",
        b"Content-Length: 4, 4, 5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"X: " + b"x" * 2_000_000,
        b"X: x\r\n" * 300_000 + b"X: x",
    ],
    ids=["two lengths", "negative", "signed", "a list", "coded", "chunked twice", "long", "many"],
)
def test_a_head_that_breaks_http_is_a_400_and_ends_the_connection(served: Registry, lines: bytes) -> None:
    head = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n"
    with _connected(served) as connection:
        with suppress(ConnectionError):  # it need not read all of that
            connection.sendall(head + lines + b"\r\n\r\n")
        assert connection.recv(1000).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
        assert _ends(connection)
    assert served.http.get("/v2/").status_code == 200


def test_the_body_of_a_head_is_no_request(served: Registry) -> None:
    inner = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"HEAD /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner)
    last = b"GET /no/such/path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert _answers(served, head + inner + last) == [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found"]


def test_any_number_of_parameters_is_read(served: Registry) -> None:
    served.push_blob("a", b"x")
    query = "&".join(f"n{number}=1" for number in range(5000))
    assert served.http.get(f"/v2/_catalog?{query}&n=0").json() == {"repositories": []}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../../etc/passwd",
        "/v2/a/../../etc/manifests/passwd",
        "/v2/%2e%2e/%2e%2e/manifests/passwd",
        "/v2/a/manifests/..%2f..%2findex.json",
        "/v2/a/manifests/..",
        "/v2/a/manifests/%00",
        "/v2/a/blobs/sha256:..%2f..%2f..%2findex.json",
        "/v2/a/blobs/../../index.json",
        "/v2/a/blobs/uploads/..",
        "/v2/a%00b/tags/list",
        "/v2/a%0a/tags/list",
        "//v2/",
        "/v2//tags/list",
        "/v2/%C3%A9/tags/list",
        "/v2/%ff/tags/list",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_path_leads_out_of_the_registry(tmp_path: Path, method: str, path: str) -> None:
    with registry(layout_repositories(tmp_path / "served")) as served:
        served.push_image("a", "1")
        before = {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()}
        # Written by hand: a client library would take the dots out.
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        (status,) = _answers(served, head.encode())
        assert status.split()[1] in {b"400", b"404", b"405"}
        after = {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "ranges",
    ["0-0,1-1", ",".join(f"{n}-{n}" for n in range(5000)), "0-" + "9" * 30, "0-0-0", "-", "--1"],
    ids=["two", "thousands", "too long", "three ends", "none", "negative"],
)
def test_what_is_not_one_range_gets_all_of_a_blob_once(served: Registry, ranges: str) -> None:
    digest = served.push_blob("a", b"0123456789")
    response = served.http.get(f"/v2/a/blobs/{digest}", headers={"range": f"bytes={ranges}"})
    assert (response.status_code, response.content) == (200, b"0123456789")


def test_who_only_connects_makes_room_for_who_asks() -> None:
    with registry(MemoryRepositories(), connections=4) as served, ExitStack() as stack:
        assert served.http.get("/v2/").status_code == 200  # and its connection stays
        idle = []
        for _ in range(20):
            idle.append(stack.enter_context(_connected(served)))
            idle[-1].sendall(b"GET /v2/ HTT")  # a head without end rests like none at all
        with httpx.Client(base_url=served.server.url, trust_env=False, timeout=60) as another:
            for _ in range(3):
                assert another.get("/v2/").status_code == 200
        assert _ends(idle[0])


def test_who_asks_is_never_let_go_for_who_connects(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    with registry(layout_repositories(tmp_path / "served"), connections=4) as served, ExitStack() as stack:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        pushing = stack.enter_context(_connected(served))
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        pushing.sendall(head.encode() + content[: 1 << 20])
        until(lambda: served.http.get(location).headers["range"] != "0-0")
        for _ in range(20):
            stack.enter_context(_connected(served))
        pushing.sendall(content[1 << 20 :])
        assert pushing.recv(100).startswith(b"HTTP/1.1 202 ")


def test_a_second_end_of_an_upload_is_a_404(tmp_path: Path) -> None:
    content = os.urandom(20 << 20)
    digest = digest_of(content)
    with registry(layout_repositories(tmp_path / "served")) as served:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]

        def end(_: int) -> httpx.Response:
            url = served.server.url + location
            return httpx.put(url, params={"digest": digest}, content=content, trust_env=False, timeout=60)

        with ThreadPoolExecutor(3) as pool:
            answers = sorted(pool.map(end, range(3)), key=lambda answer: answer.status_code)
        assert [answer.status_code for answer in answers] == [201, 404, 404]
        assert codes(answers[1]) == ["BLOB_UPLOAD_UNKNOWN"]
        assert served.http.get(f"/v2/a/blobs/{digest}").content == content
        assert [one.failure for one in served.served if one.failure] == []


def test_an_upload_that_nobody_ends_gives_its_space_back(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served"), upload_seconds=3) as served:
        location = served.http.post("/v2/a/blobs/uploads/").headers["location"]
        assert served.http.patch(location, content=b"x" * 1000).status_code == 202
        private = tmp_path / "served" / ".ocitool" / "partial"
        assert len(list(private.iterdir())) == 1
        until(lambda: not list(private.iterdir()))
        assert served.http.get(location).status_code == 404


def test_a_blob_that_is_deleted_meanwhile_is_pulled_whole(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 20  # more than sockets hold
    with registry(layout_repositories(tmp_path / "served")) as served:
        digest = served.push_blob("a", content)
        with served.http.stream("GET", f"/v2/a/blobs/{digest}") as response:
            with httpx.Client(base_url=served.server.url, trust_env=False, timeout=60) as another:
                assert another.delete(f"/v2/a/blobs/{digest}").status_code == 202
                assert another.get(f"/v2/a/blobs/{digest}").status_code == 404
            assert response.read() == content


def test_tags_that_are_moved_and_deleted_at_the_same_time_never_break_a_pull(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served")) as served:
        images = [served.push_image("a", "moving", layer=os.urandom(50)) for _ in range(2)]
        digests = {digest_of(image) for image in images}
        stop = threading.Event()

        def change() -> None:
            with httpx.Client(base_url=served.server.url, trust_env=False, timeout=60) as http:
                while not stop.is_set():
                    for image in images:
                        moving = Registry(served.server, http, []).push_manifest("a", "moving", image)
                        assert moving.status_code == 201
                    assert http.delete("/v2/a/manifests/moving").status_code == 202

        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change)
            for _ in range(200):
                response = served.http.get("/v2/a/manifests/moving")
                assert response.status_code == 404 or digest_of(response.content) in digests
            stop.set()
            changing.result()
        assert [one.failure for one in served.served if one.failure] == []
