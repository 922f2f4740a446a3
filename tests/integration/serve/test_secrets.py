"""Certificates and passwords that change while the registry serves."""

from __future__ import annotations

import shutil
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from support.peers import call, require
from support.serve_registry import MemoryRepositories, registry
from support.serve_tls import certificate

from ocitool.serve import Htpasswd, Options, Server


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    return certificate(tmp_path / "one"), certificate(tmp_path / "two")


def _presented(server: Server, name: str | None = None) -> bytes:
    host, _, port = server.address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
    assert shown
    return shown


def _der(cert: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


def _replace(path: Path, by: Path) -> None:
    """As a renewal does: a new file takes the name."""
    shutil.copy(by, f"{path}.new")
    Path(f"{path}.new").replace(path)


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_renewed_certificate_is_presented_from_then_on(
    certificates: tuple[tuple[Path, Path], tuple[Path, Path]], name: str | None
) -> None:
    (cert, key), (new_cert, new_key) = certificates
    with Server(MemoryRepositories(), tls_cert=cert, tls_key=key) as server:
        before = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=server.url, verify=before, trust_env=False, timeout=60) as client:
            assert client.get("/v2/").status_code == 200
            _replace(key, new_key)
            _replace(cert, new_cert)
            assert _presented(server, name) == _der(new_cert)
            assert client.get("/v2/").status_code == 200  # on the connection that there is


def test_a_certificate_that_can_not_be_used_does_not_take_the_place_of_one_that_can(
    certificates: tuple[tuple[Path, Path], tuple[Path, Path]],
) -> None:
    (cert, key), (new_cert, new_key) = certificates
    old = _der(cert)
    failures: list[Exception] = []
    options = Options(on_failure=failures.append)
    with Server(MemoryRepositories(), options=options, tls_cert=cert, tls_key=key) as server:
        _replace(cert, new_cert)  # and its key is on its way
        assert _presented(server) == _presented(server) == old
        assert [str(failure) for failure in failures] == [str(failures[0])]
        assert "its key can't be used" in str(failures[0])
        cert.unlink()
        assert _presented(server) == old
        _replace(key, new_key)
        _replace(cert, new_cert)
        assert _presented(server) == _der(new_cert)


def test_passwords_that_can_not_be_read_any_more_keep_everybody_out(tmp_path: Path) -> None:
    require("htpasswd")
    users = tmp_path / "users"
    call("htpasswd", "-Bbc", users, "ann", "right")
    with registry(MemoryRepositories(), passwords=Htpasswd(users)) as served:
        right = ("ann", "right")
        assert served.http.get("/v2/", auth=right).status_code == 200
        for broken in (lambda: users.write_text("ann:plain\n"), users.unlink):
            broken()
            for auth in (right, ("ann", "wrong")):
                response = served.http.get("/v2/", auth=auth)
                assert response.status_code == 500
                assert str(users) not in response.text
            assert str(users) in str(served.served[-1].failure)
        call("htpasswd", "-Bbc", users, "ann", "right")
        assert served.http.get("/v2/", auth=right).status_code == 200
