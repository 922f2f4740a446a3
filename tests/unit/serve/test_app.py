"""The application as an ASGI application, for servers other than ours."""

from __future__ import annotations

import asyncio
from typing import Any

from support.serve_registry import MemoryRepositories

from ocitool.serve import create_app


def _exchange(scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    app = create_app(MemoryRepositories())
    incoming = list(received)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    app.close()
    return sent


def _scope(**more: Any) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/v2/", "query_string": b"", "headers": [], **more}


def test_it_starts_and_stops_with_its_server() -> None:
    sent = _exchange({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_it_answers_without_knowing_its_client() -> None:
    start, body = _exchange(_scope(client=None))
    assert start["status"] == 200
    assert body["body"] == b"{}"


def test_a_client_that_goes_away_in_its_body_gets_no_answer() -> None:
    scope = _scope(method="PUT", path="/v2/a/manifests/x")
    sent = _exchange(scope, {"type": "http.request", "body": b"{", "more_body": True})
    assert sent == []


def test_of_a_parameter_that_stands_twice_the_first_counts() -> None:
    scope = _scope(path="/v2/_catalog", query_string=b"n=0&n=5")
    assert _exchange(scope)[1]["body"] == b'{"repositories": []}'
    assert _exchange(_scope(path="/v2/_catalog", query_string=b"n=x&n=5"))[0]["status"] == 400
