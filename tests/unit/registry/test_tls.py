"""Whom to believe and who to be: files that can't be used are named."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.registry_certificates import Authority

from ocitool.errors import OciError
from ocitool.registry.tls import Trust, context

if TYPE_CHECKING:
    from pathlib import Path


def test_the_default_verifies_and_speaks_no_old_versions() -> None:
    made = context(Trust(), {})
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2


def test_not_verifying_is_possible_and_nothing_else_changes() -> None:
    made = context(Trust(verify=False), {})
    assert made.verify_mode is ssl.CERT_NONE
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2


def test_authorities_are_added_to_the_systems(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(Authority().pem)
    before = len(context(Trust(), {}).get_ca_certs())
    assert len(context(Trust(authorities=(tmp_path / "ca.pem",)), {}).get_ca_certs()) == before + 1


def test_a_directory_that_the_environment_names_stands_for_the_systems_authorities(tmp_path: Path) -> None:
    assert context(Trust(), {"SSL_CERT_DIR": str(tmp_path)}).get_ca_certs() == []


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_an_authority_that_can_not_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OciError, match=r"ca\.pem can't be read"):
        context(Trust(authorities=(path,)), {})
    with pytest.raises(OciError, match="SSL_CERT_FILE"):
        context(Trust(), {"SSL_CERT_FILE": str(path)})


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    certificate, _ = authority.write(tmp_path, "one")
    _, key = authority.write(tmp_path, "two")
    with pytest.raises(OciError, match="client certificate and key"):
        context(Trust(identities=((certificate, key),)), {})


def test_nobody_is_asked_for_a_password(tmp_path: Path) -> None:
    certificate, key = Authority().write(tmp_path, "one")
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(OciError, match="encrypted"):
        context(Trust(identities=((certificate, key),)), {})


def test_a_bare_container_believes_what_httpx_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ssl.DefaultVerifyPaths(None, None, "SSL_CERT_FILE", "", "SSL_CERT_DIR", "")  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    assert context(Trust(), {}).get_ca_certs()
