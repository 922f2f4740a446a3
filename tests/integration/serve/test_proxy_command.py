"""`ocitool serve --proxy`: another registry behind a cache, for those who pull the same images all day."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from support.command import Ocitool
from support.fixtures import digests, layout
from support.waiting import until

from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories
from ocitool.serve import Options, Served, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def proxy(ocitool: Ocitool, cache: Path, upstream: str, *options: str) -> Iterator[str]:
    """The command, while it serves; gives its address."""
    address = ocitool.home / "address"
    command = [
        sys.executable,
        "-m",
        "ocitool",
        "serve",
        cache,
        "--proxy",
        upstream,
        "--listen",
        "127.0.0.1:0",
        *options,
    ]
    with subprocess.Popen(
        [*map(str, command), "--address-file", address], env=ocitool.environment, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: process.poll() is not None or (address.exists() and address.read_text()))
            assert process.poll() is None
            yield address.read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_what_was_pulled_once_is_served_though_the_upstream_is_gone(tmp_path: Path) -> None:
    ocitool = Ocitool(tmp_path)
    asked: list[Served] = []
    options = Options(on_request=asked.append)
    images = LayoutRepositories(LayoutStore(layout(), create=False))
    with ExitStack() as stack:
        running = stack.enter_context(ExitStack())
        upstream = running.enter_context(Server(images, options=options))
        address = stack.enter_context(proxy(ocitool, tmp_path / "cache", upstream.address))
        reference = f"{address}/layers:1.0"
        assert ocitool("pull", reference, f"oci:{tmp_path}/one").result == digests()["layers:1.0"]
        # The upstream tells of a request after its answer; the cache keeps a blob after its client has it.
        until(lambda: len(blobs_of(asked)) == 4 and len(list(LayoutStore(tmp_path / "cache").blobs)) == 5)
        ocitool("pull", reference, f"oci:{tmp_path}/two")
        assert len(blobs_of(asked)) == 4
        running.close()
        assert ocitool("pull", reference, f"oci:{tmp_path}/three").result == digests()["layers:1.0"]
        ocitool("push", f"oci:{tmp_path}/one:1.0", f"{address}/mine:1.0", code=12)


def test_a_cache_with_a_size_keeps_to_it_and_serves_all_the_same(tmp_path: Path) -> None:
    ocitool = Ocitool(tmp_path)
    images = LayoutRepositories(LayoutStore(layout(), create=False))
    cache = tmp_path / "cache"
    with (
        Server(images) as upstream,
        proxy(ocitool, cache, upstream.address, "--cache-size", "1K") as address,
    ):
        for place in ("one", "two"):
            told = ocitool("pull", f"{address}/layers:1.0", f"oci:{tmp_path}/{place}")
            assert told.result == digests()["layers:1.0"]
            until(lambda: sum(stat.st_size for _, stat in LayoutStore(cache).blobs) <= 1024)


def blobs_of(asked: list[Served]) -> list[str]:
    return [served.path for served in asked if served.route == "blob" and served.method == "GET"]


@pytest.mark.parametrize(
    "options",
    [
        ("--proxy", "not a host"),
        ("--proxy", "localhost:5000", "--read-only"),
        ("--cache-size", "20G"),
        ("--proxy", "localhost:5000", "--cache-size", "much"),
    ],
)
def test_what_can_not_be_is_told_before_anything_listens(tmp_path: Path, options: tuple[str, ...]) -> None:
    refused = Ocitool(tmp_path)("serve", tmp_path / "cache", "--listen", "127.0.0.1:0", *options, code=2)
    assert "serving" not in refused.err
