"""What a registry has to prove with its certificate, and what we prove with ours."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocitool.errors import OciError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe, and who to be.

    Attributes:
        verify: whether the certificate has to be valid at all.
        authorities: files of certificates that are believed in addition to the system's.
        identities: pairs of our certificate and its key; the key's file may be the certificate's.
    """

    verify: bool = True
    authorities: tuple[Path, ...] = ()
    identities: tuple[tuple[Path, Path], ...] = ()


def context(trust: Trust, environ: Mapping[str, str]) -> ssl.SSLContext:
    """Build the TLS context; TLS 1.2 is the least.

    Raises:
        OciError: a certificate or key can't be read.
    """
    made = _with_system_roots(environ) if trust.verify else any_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    for authority in trust.authorities:
        try:
            made.load_verify_locations(cafile=authority)
        except OSError as error:
            raise OciError(f"{authority} can't be read as CA certificates: {_reason(error)}") from error
    for certificate, key in trust.identities:
        try:
            made.load_cert_chain(certificate, key, password=_no_password)
        except OSError as error:
            raise OciError(
                f"{certificate} and {key} can't be read as client certificate and key: {_reason(error)}"
            ) from error
    return made


def any_context() -> ssl.SSLContext:
    """A TLS context that believes anyone, and so has nobody's certificates to load."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def _with_system_roots(environ: Mapping[str, str]) -> ssl.SSLContext:
    cafile, capath = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if cafile or capath:
        try:
            return ssl.create_default_context(cafile=cafile or None, capath=capath or None)
        except OSError as error:
            raise OciError(f"SSL_CERT_FILE={cafile} can't be read: {_reason(error)}") from error
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        return ssl.create_default_context()
    # A bare container has no certificates of its own; httpx brings Mozilla's.
    from ocitool.registry.lean import httpx

    return httpx.create_ssl_context()


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal.
    raise OciError(
        "the client key is encrypted; decrypt it first, because nobody can be asked for a password"
    )
