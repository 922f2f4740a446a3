"""A registry over a layout and one over dictionaries answer the same, whatever they are asked."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.serve_registry import (
    MemoryRepositories,
    descriptor,
    digest_of,
    image,
    index,
    layout_repositories,
)

from ocitool.serve import create_app
from ocitool.serve.app import Registry

BLOBS = [b"{}", b"one", b"two"]
SUBJECT = image(b"one")
DOCUMENTS: list[dict[str, Any]] = [
    SUBJECT,
    image(b"two", annotations={"n": "2"}),
    image(b"one", b"two"),
    image(subject=descriptor(SUBJECT), artifactType="application/x.sbom"),
    index(SUBJECT),
    index(SUBJECT, image(b"two", annotations={"n": "2"})),
    index(subject=descriptor(SUBJECT)),
]
DIGESTS = [*map(digest_of, BLOBS), *map(digest_of, DOCUMENTS)]
TAGS = ["a", "B", "c.1"]

Step = tuple[str, str, str, bytes]

blob_digests = st.sampled_from(DIGESTS[: len(BLOBS)])
references = st.sampled_from([*TAGS, *DIGESTS, "sha256:" + "0" * 64])


def _push_blob(content: bytes) -> Step:
    return "POST", f"/v2/x/blobs/uploads/?digest={digest_of(content)}", "application/octet-stream", content


def _push_manifest(document: dict[str, Any], tag: str) -> Step:
    reference = tag or digest_of(document)
    return "PUT", f"/v2/x/manifests/{reference}", document["mediaType"], json.dumps(document).encode()


steps = st.one_of(
    st.builds(_push_blob, st.sampled_from(BLOBS)),
    st.builds(_push_manifest, st.sampled_from(DOCUMENTS), st.sampled_from([*TAGS, ""])),
    st.builds(lambda ref: ("DELETE", f"/v2/x/manifests/{ref}", "", b""), references),
    st.builds(lambda ref: ("DELETE", f"/v2/x/blobs/{ref}", "", b""), blob_digests),
    st.builds(lambda ref: ("GET", f"/v2/x/manifests/{ref}", "", b""), references),
    st.builds(lambda ref: ("HEAD", f"/v2/x/manifests/{ref}", "", b""), references),
    st.builds(lambda ref: ("GET", f"/v2/x/blobs/{ref}", "", b""), blob_digests),
    st.builds(lambda ref: ("POST", f"/v2/x/blobs/uploads/?mount={ref}&from=x", "", b""), blob_digests),
    st.just(("GET", "/v2/x/tags/list", "", b"")),
    st.just(("GET", "/v2/x/tags/list?n=2", "", b"")),
    st.builds(lambda ref: ("GET", f"/v2/x/referrers/{ref}", "", b""), st.sampled_from(DIGESTS)),
)


async def _answer(app: Registry, step: Step) -> tuple[Any, ...]:
    method, target, media_type, body = step
    path, _, query = target.partition("?")
    sent: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"content-type", media_type.encode())],
    }
    await app(scope, receive, send)
    headers = {
        key: value
        for key, value in sent[0]["headers"]
        if key in {b"content-type", b"etag", b"link", b"oci-subject"}
    }
    answered = b"".join(message["body"] for message in sent[1:])
    # The words of an error may differ, its code may not.
    if sent[0]["status"] >= 400 and answered:
        answered = json.loads(answered)["errors"][0]["code"]
    return sent[0]["status"], headers, answered


@settings(max_examples=60)
@given(st.lists(steps, max_size=25))
def test_a_layout_and_dictionaries_give_the_same_answers(asked: list[Step]) -> None:
    start = [_push_blob(content) for content in BLOBS]

    async def compare(directory: str) -> None:
        apps = [create_app(MemoryRepositories()), create_app(layout_repositories(Path(directory) / "layout"))]
        try:
            for step in [*start, *asked]:
                memory, layout = [await _answer(app, step) for app in apps]
                assert memory == layout, step
        finally:
            for app in apps:
                app.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(directory))
