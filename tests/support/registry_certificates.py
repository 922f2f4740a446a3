"""A certificate authority of the tests' own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

DAY = dt.timedelta(days=1)


class Authority:
    """Signs certificates for servers and clients."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.certificate = (
            self._builder(self._name, self._key.public_key(), dt.timedelta(0))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def certify(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
        shift: dt.timedelta = dt.timedelta(0),
    ) -> x509.Certificate:
        """A certificate for a key; `shift` moves its time of validity."""
        names = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            for host in hosts
        ]
        return (
            self._builder(_named(name), key, shift)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def write(
        self,
        directory: Path,
        name: str,
        hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
        shift: dt.timedelta = dt.timedelta(0),
    ) -> tuple[Path, Path]:
        """A new key and its certificate, as two files."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, secret = directory / f"{name}.cert", directory / f"{name}.key"
        certificate.write_bytes(
            self.certify(key.public_key(), name, hosts, shift).public_bytes(serialization.Encoding.PEM)
        )
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret

    def server_context(
        self, directory: Path, *, ask_client: bool = False, **options: object
    ) -> ssl.SSLContext:
        """What a server needs to speak TLS with a certificate of ours."""
        certificate, key = self.write(directory, "server", **options)  # type: ignore[arg-type] # passed on
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.pem.decode())
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, shift: dt.timedelta
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC) + shift
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
