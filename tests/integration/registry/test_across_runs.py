"""Pulls that go on in another process, and registries that are reached by other ways than plain HTTP."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from support.peers import call, require
from support.registry_certificates import Authority
from support.registry_fake import FakeRegistry, Request, Response, always
from support.registry_faults import FaultProxy, Faults, closed_port, name_of
from support.registry_images import client, memory_image, repository, stocked
from support.registry_process import docker_registry, htpasswd
from support.waiting import until

from ocitool.content import read_verified
from ocitool.errors import Unreachable
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.reference import Reference
from ocitool.registry import credentials
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 40_000_000
PULL = """
import sys
from ocitool.layout import LayoutStore
from ocitool.reference import Reference
from ocitool.registry import Client, ClientConfig
from ocitool.transfer import copy

with Client(ClientConfig(ranges=1)) as client:
    copy(client.repository(Reference.parse(sys.argv[1])), LayoutStore(sys.argv[2]), "v1")
"""


def kept(layout: Path) -> int:
    """How much a layout has of what is on its way to it."""
    sizes = [path.stat().st_size for path in layout.rglob("*")] if layout.exists() else []
    return sum(size for size in sizes if size > 1 << 20)


@pytest.mark.registry
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_f_17_f_26_the_second_run_fetches_only_what_the_first_did_not_keep(
    tmp_path: Path, how: signal.Signals
) -> None:
    with docker_registry(tmp_path) as registry:
        with client() as made:
            root = copy(memory_image(SIZE), repository(made, registry), "v1")
        host, _, port = registry.partition(":")
        with FaultProxy((host, int(port)), Faults(lambda _: SIZE // 2, "stall")).running() as proxy:
            command = [sys.executable, "-c", PULL, f"{proxy.name}/some/repo", str(tmp_path / "layout")]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                until(lambda: proxy.passed >= SIZE // 2 and kept(tmp_path / "layout") > SIZE // 4)
                process.send_signal(how)
                asked = time.monotonic()
                process.wait(60)
            assert time.monotonic() - asked < 20  # the registry says nothing more for longer than that
            assert process.returncode != 0
            before, there = proxy.passed, kept(tmp_path / "layout")
            assert there > SIZE // 4
            proxy.faults = Faults()
            subprocess.run(command, check=True)
            # The manifest and all headers are little beside that.
            assert proxy.passed - before < SIZE - there + 20_000
    layout = LayoutStore(tmp_path / "layout", read_only=True)
    assert layout.resolve("v1") == root
    back = MemoryStore()
    copy(layout, back, "v1")


@pytest.mark.registry
@pytest.mark.peers
def test_skopeo_reads_what_we_push_and_we_read_what_it_pushes(tmp_path: Path) -> None:
    require("skopeo")
    with docker_registry(tmp_path) as registry, client() as made:
        repo = repository(made, registry)
        root = copy(memory_image(100_000, 10), repo, "v1")
        options = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"]
        call("skopeo", "copy", *options, f"docker://{repo.name}:v1", f"docker://{registry}/other/repo:v2")
        other = repository(made, registry, "other/repo")
        assert other.resolve("v2") == root
        copy(other, MemoryStore(), "v2")


@pytest.mark.registry
@pytest.mark.peers
def test_skopeo_is_let_in_by_what_login_writes(tmp_path: Path) -> None:
    require("skopeo")
    with docker_registry(tmp_path, htpasswd(tmp_path)) as registry:
        environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        with client(environ=environ) as made:
            made.check(registry, "user", "secret-password")
            written = credentials.login(registry, "user", "secret-password", environ=environ)
            copy(memory_image(10), repository(made, registry), "v1")
        options = ["--tls-verify=false", f"--authfile={written}"]
        assert "Digest" in call("skopeo", "inspect", *options, f"docker://{registry}/some/repo:v1")


@pytest.mark.registry
@pytest.mark.peers
def test_we_are_let_in_by_what_skopeo_and_podman_write(tmp_path: Path) -> None:
    require("skopeo")
    with docker_registry(tmp_path, htpasswd(tmp_path)) as registry:
        call(
            "skopeo", "login", "--tls-verify=false", "-u", "user", "-p", "secret-password",
            f"--authfile={tmp_path}/run/containers/auth.json", registry,
        )  # fmt: skip
        environ = {
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "PATH": os.environ["PATH"],
        }
        with client(environ=environ) as made:
            copy(memory_image(10), repository(made, registry), "v1")


def test_ipv6_is_spoken(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with FakeRegistry(host="::1").running() as fake:
        desc = stocked(fake, 1000)
        with client() as made:
            assert repository(made, fake.name).resolve("v1") == desc


def test_certs_d_and_ssl_cert_file_are_believed(tmp_path: Path) -> None:
    authority = Authority()
    context = authority.server_context(tmp_path, ask_client=True)
    with FakeRegistry(context).running() as fake:
        desc = stocked(fake, 1000)
        directory = tmp_path / "containers/certs.d" / fake.name
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.pem)
        environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
        with client(environ=environ) as made, pytest.raises(Unreachable):
            repository(made, fake.name).resolve("v1")  # no certificate of our own
        authority.write(directory, "client")
        with client(environ=environ) as made:
            assert repository(made, fake.name).resolve("v1") == desc
        (directory / "ca.crt").unlink()
        with client(environ=environ) as made, pytest.raises(Unreachable, match="not valid"):
            repository(made, fake.name).resolve("v1")
        (tmp_path / "bundle.pem").write_bytes(authority.pem)
        with client(environ={**environ, "SSL_CERT_FILE": str(tmp_path / "bundle.pem")}) as made:
            assert repository(made, fake.name).resolve("v1") == desc
        with client(environ=environ, tls_verify=False) as made:
            assert repository(made, fake.name).resolve("v1") == desc


def test_a_client_certificate_is_for_the_registry_alone(tmp_path: Path) -> None:
    """A storage behind a redirect that asks for a certificate does not get the registry's."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    certificate, key = authority.write(tmp_path, "client")
    context = authority.server_context(tmp_path, ask_client=True)
    files = {"ca_file": tmp_path / "ca.pem", "cert_file": certificate, "key_file": key}
    with FakeRegistry(context).running() as fake, FakeRegistry(context).running() as storage:
        stocked(fake, 1000)
        fake.quirks.redirect_blobs = storage.url
        with client(files, retries=1) as made:
            repo = repository(made, fake.name)
            repo.resolve("v1")
            with pytest.raises(Unreachable):
                copy(repo, MemoryStore(), "v1")
        assert not storage.log


def test_f_27_a_registry_with_tls_is_reached_through_a_proxy(tmp_path: Path) -> None:
    """CONNECT, with the proxy's own credentials; the name is resolved by the proxy alone."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = authority.server_context(tmp_path, hosts=("registry.example", "storage.example"))
    with FakeRegistry(context).running() as fake, _connecting(fake) as (proxy, seen):
        desc = stocked(fake, 1000)
        environ = {"HTTPS_PROXY": f"http://me:pw@{proxy}", "HOME": "/nonexistent"}
        storage = "https://storage.example/v2/some/repo/blobs"
        fake.before.append(
            lambda request: (
                Response(307, {"Location": f"{storage}/{request.path.rpartition('/')[2]}"})
                if "blobs" in request.path and request.headers["host"] == "registry.example"
                else None
            )
        )
        with client(environ=environ, ca_file=tmp_path / "ca.pem") as made:
            repo = repository(made, "registry.example")
            assert repo.resolve("v1") == desc
            copy(repo, MemoryStore(), "v1")
    assert {text.split()[1] for text in seen} == {"registry.example:443", "storage.example:443"}
    assert all("Basic bWU6cHc=" in text for text in seen)
    assert all("proxy-authorization" not in request.headers for request in fake.log)


def test_f_27_a_proxy_that_does_not_answer_is_called_a_proxy() -> None:
    with closed_port() as nobody:
        proxy = name_of(nobody)
        environ = {"HTTPS_PROXY": f"http://me:secret-word@{proxy}", "HOME": "/nonexistent"}
        with client(environ=environ, retries=1) as made, pytest.raises(Unreachable) as caught:
            repository(made, "registry.example").resolve("v1")
    assert str(caught.value) == f"{proxy} can't be reached: Connection refused"
    assert "HTTPS_PROXY" in caught.value.hint
    assert "secret-word" not in caught.value.hint


@contextmanager
def _connecting(fake: FakeRegistry) -> Iterator[tuple[str, list[str]]]:
    """A proxy that knows CONNECT alone, and leads everywhere to the fake registry."""
    seen: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=connect, args=(listener.accept()[0],), daemon=True).start()

    def connect(one: socket.socket) -> None:
        with suppress(OSError), one, socket.create_connection((fake.host, fake.port)) as other:
            seen.append(one.recv(4096).decode())
            one.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _join(one, other)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _join(one: socket.socket, other: socket.socket) -> None:
    while True:
        for sock in select.select([one, other], [], [])[0]:
            data = sock.recv(1 << 16)
            if not data:
                return
            (other if sock is one else one).sendall(data)


def test_ns_tells_a_mirror_which_registry_is_meant(fake: FakeRegistry, tmp_path: Path) -> None:
    desc = stocked(fake, 1000, name="hub/library/debian")
    (tmp_path / "r.conf").write_text(
        '[[registry]]\nprefix = "docker.io"\n[[registry.mirror]]\n'
        f'location = "{fake.name}/hub"\ninsecure = true\n'
    )
    with client(registries_conf=tmp_path / "r.conf") as made:
        repo = made.repository(Reference.parse("docker.io/library/debian"))
        fake.before.append(always("HEAD", "", _unasked))
        assert repo.resolve("v1") == desc
        assert read_verified(repo, desc)
    assert {request.first("ns") for request in fake.log} == {"docker.io"}


def _unasked(request: Request) -> Response:
    raise AssertionError(request.path)
