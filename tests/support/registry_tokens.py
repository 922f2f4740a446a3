"""A token service in the test process, whose tokens docker-registry accepts as well as the fake does."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from support.registry_certificates import Authority
from support.registry_fake import FakeRegistry, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "registry.test"


@dataclass
class TokenServer:
    """Gives tokens for Basic credentials, or for a refresh token.

    Attributes:
        users: passwords by user name; "" allows nobody anonymous.
        life: seconds that a token is good for.
        told_life: what `expires_in` says; None leaves it out.
        posts: whether it knows POST; else it answers this status.
    """

    users: dict[str, str] = field(default_factory=lambda: {"user": "secret-password"})
    refresh: str = "secret-refresh-token"
    anonymous: bool = False
    life: float = 300
    told_life: float | None = 300
    post_status: int = 200
    key_name: str = "token"
    deny: Callable[[str], bool] = lambda _: False
    issued: dict[str, tuple[float, list[str]]] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = FakeRegistry()
        self.server.before.append(self._answer)
        self._authority = Authority("token authority")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._authority.certify(self._key.public_key(), "token signer")

    @property
    def realm(self) -> str:
        return f"{self.server.url}/token"

    def write_roots(self, path: Path) -> None:
        """What docker-registry checks tokens with."""
        path.write_bytes(self._authority.pem)

    def challenge(self, scope: str) -> str:
        return f'Bearer realm="{self.realm}",service="{SERVICE}",scope="{scope}"'

    def protects(self, registry: FakeRegistry) -> None:
        """Make a fake registry ask for tokens of this service."""
        registry.before.insert(0, self.gate)

    def gate(self, request: Request) -> Response | None:
        """Refuse what comes without a token for it."""
        kind, _, value = request.authorization.partition(" ")
        wanted = scope_of(request)
        issued, scopes = self.issued.get(value, (0.0, [])) if kind == "Bearer" else (0.0, [])
        if time.monotonic() < issued + self.life and covers(scopes, wanted):
            return None
        return Response(
            401, {"WWW-Authenticate": self.challenge(wanted)}, b'{"errors":[{"code":"UNAUTHORIZED"}]}'
        )

    def _answer(self, request: Request) -> Response:
        self.log.append(request)
        if request.method == "POST":
            if self.post_status != 200:
                return Response(self.post_status)
            form = parse_qs(request.body.decode())
            if form.get("refresh_token") != [self.refresh]:
                return Response(401)
            return self._token("refresher", form.get("scope", [""])[0].split(), form.get("service", [""])[0])
        user = self._user(request.authorization)
        if user is None:
            return Response(401, {"WWW-Authenticate": "Basic realm=tokens"})
        return self._token(user, request.query.get("scope", []), request.first("service"))

    def _user(self, authorization: str) -> str | None:
        if not authorization:
            return "" if self.anonymous else None
        user, _, password = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
        return user if self.users.get(user) == password else None

    def _token(self, user: str, scopes: list[str], service: str) -> Response:
        granted = [scope for scope in scopes if not self.deny(scope)]
        token = self._signed(user, granted, service)
        self.issued[token] = (time.monotonic(), granted)
        document: dict[str, object] = {self.key_name: token}
        if self.told_life is not None:
            document["expires_in"] = self.told_life
        return Response(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _signed(self, user: str, scopes: list[str], service: str) -> str:
        now = int(time.time())
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "test-issuer",
            "sub": user,
            "aud": service,
            "exp": now + max(int(self.life), 1),
            "nbf": now - 10,
            "iat": now,
            "jti": str(uuid.uuid4()),
            "access": [
                {"type": kind, "name": name, "actions": actions.split(",")}
                for kind, _, rest in (scope.partition(":") for scope in scopes)
                for name, _, actions in [rest.rpartition(":")]
            ],
        }
        signed = f"{_packed(header)}.{_packed(claims)}"
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def scope_of(request: Request) -> str:
    """What a request needs."""
    if request.path == "/v2/_catalog":
        return "registry:catalog:*"
    parts = request.path.split("/")
    ends = [i for i, part in enumerate(parts) if part in {"blobs", "manifests", "tags", "referrers"}]
    if not ends:
        return ""
    name = "/".join(parts[2 : ends[-1]])
    actions = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(request.method, "pull,push")
    return f"repository:{name}:{actions}"


def covers(scopes: list[str], wanted: str) -> bool:
    resource, _, actions = wanted.rpartition(":")
    held = {name.rpartition(":")[0]: set(name.rpartition(":")[2].split(",")) for name in scopes}
    return not resource or set(actions.split(",")) <= held.get(resource, set())


def _packed(document: object) -> str:
    return _base64(json.dumps(document).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
