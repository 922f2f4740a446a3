"""The challenge and token flow of one registry.

The first request goes out bare. If the registry answers 401, its challenge says how to come back: with the
user's password (Basic), or with a token that a token service gives for it (Bearer). From then on requests
carry what is known to be wanted, so that none is refused without need.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from ocitool.errors import OciError, RegistryError, Unauthorized
from ocitool.registry import headers
from ocitool.registry.origins import Origin, follow
from ocitool.registry.responses import Answer, error_of
from ocitool.registry.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import httpx

    from ocitool.registry.connections import Reply
    from ocitool.registry.credentials import Credentials
    from ocitool.registry.headers import Challenge

    # method, URL, header fields, body -> the answer; no redirects, no authorization of its own
    Ask = Callable[[str, httpx.URL, Mapping[str, str], bytes | None], Answer]

# What the token specification of the distribution project says where `expires_in` is missing.
_DEFAULT_LIFE: Final = 60.0
_CLIENT_ID: Final = "ocitool"
_NO_POST: Final = frozenset({400, 401, 404, 405, 501})
"""What token services answer that know only GET (GCR 404, Artifactory 401, ACR 400, others 405)."""

_SETTLING: Final = 5.0
"""Seconds in which a token may be too new for a node with another clock."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    repository: str
    scopes: tuple[str, ...]
    issued: float
    life: float

    @property
    def authorization(self) -> str:
        return f"Bearer {self.value}"

    def usable(self, now: float) -> bool:
        return now < self.issued + self.life - min(10.0, self.life / 10)


class Authenticator:
    """Knows what one registry wants to see. Safe to use from several threads.

    Args:
        home: gives the registry's origin.
        find: finds the credentials for a repository; asked at the first challenge, not before.
        ask: sends a request to the token service.
        pause: waits a number of seconds.
    """

    def __init__(
        self,
        home: Callable[[], Origin],
        find: Callable[[str], Credentials],
        ask: Ask,
        pause: Callable[[float], None],
    ) -> None:
        self._home = home
        self._find = find
        self._ask = ask
        self._pause = pause
        self._lock = threading.RLock()
        self._challenge: Challenge | None = None
        self._tokens: list[_Token] = []
        self._settled: set[str] = set()
        self._found: dict[str, Credentials] = {}

    @property
    def challenged(self) -> bool:
        """Whether the registry has ever said what it wants to see."""
        return self._challenge is not None

    def authorization(self, repository: str, scopes: tuple[str, ...]) -> str:
        """The Authorization for a request, or "" where none is known to be wanted."""
        with self._lock:
            challenge = self._challenge
            if challenge is None:
                return ""
            credentials = self._credentials(repository)
            if challenge.scheme == "basic":
                return credentials.basic
            return self._bearer(challenge, repository, merged(scopes))

    def answer(self, response: Reply, refused: str, repository: str, scopes: tuple[str, ...]) -> str:
        """What to send instead, after a 401.

        Args:
            response: the 401.
            refused: the Authorization that the request carried, or "".
            repository: the repository whose credentials count.
            scopes: what the request is about to do.

        Returns:
            An Authorization, or "" if there is nothing else to try.

        Raises:
            Unauthorized: the token service refuses.
            RegistryError: it may not be asked, or its answer makes no sense.
        """
        offered = headers.challenges(response.headers.all("www-authenticate"))
        with self._lock:
            challenge = self._chosen(offered, repository)
            if challenge is None:
                return ""
            if challenge.scheme == "basic":
                # A registry with tokens may want a password for some of its resources (Harbor's catalog).
                if self._challenge is None:
                    self._challenge = challenge
                basic = self._credentials(repository).basic
                return "" if basic == refused else basic
            self._challenge = challenge
            if self._settles(challenge, refused):
                return refused
            wanted = merged((*scopes, *challenge.parameters.get("scope", "").split()))
            return self._bearer(challenge, repository, wanted, refused)

    def _chosen(self, offered: list[Challenge], repository: str) -> Challenge | None:
        """Bearer before Basic; without any challenge, the one of before."""
        for challenge in offered:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                return challenge
        for challenge in offered:
            if challenge.scheme == "basic" and self._credentials(repository).basic:
                return challenge
        return None if offered else self._challenge

    def _settles(self, challenge: Challenge, refused: str) -> bool:
        """Whether a token was only too new for the node that looked at it; then a second is waited, once."""
        if challenge.parameters.get("error") != "invalid_token" or refused in self._settled:
            return False
        now = time.monotonic()
        for token in self._tokens:
            if token.authorization == refused and now - token.issued < min(_SETTLING, token.life):
                self._settled.add(refused)
                self._pause(1.0)
                return True
        return False

    def _credentials(self, repository: str) -> Credentials:
        found = self._found.get(repository)
        if found is None:
            found = self._found[repository] = self._find(repository)
        return found

    def _bearer(
        self, challenge: Challenge, repository: str, scopes: tuple[str, ...], refused: str = ""
    ) -> str:
        credentials = self._credentials(repository)
        if credentials.registry_token:
            ready = f"Bearer {credentials.registry_token}"
            return "" if ready == refused else ready
        now = time.monotonic()
        self._tokens = [held for held in self._tokens if held.usable(now) and held.authorization != refused]
        for held in self._tokens:
            if held.repository == repository and _covers(held.scopes, scopes):
                return held.authorization
        value, life = self._fetch(challenge, credentials, scopes)
        # By the monotonic clock, from before it was asked for: the server's clock has no say.
        token = _Token(value, repository, scopes, now, life)
        self._tokens.append(token)
        # A service that gives the refused one again has no other.
        return "" if token.authorization == refused else token.authorization

    def _fetch(
        self, challenge: Challenge, credentials: Credentials, scopes: tuple[str, ...]
    ) -> tuple[str, float]:
        home = self._home()
        realm = follow(home.url("/v2/"), challenge.parameters["realm"], home, "the token realm")
        service = challenge.parameters.get("service", "")
        answer = None
        if credentials.identity_token:
            answer = self._exchange(realm, service, scopes, credentials.identity_token)
            if answer.status in _NO_POST and credentials.basic:
                answer = None
        if answer is None:
            answer = self._get(realm, service, scopes, credentials)
        if answer.status != 200:
            error = error_of(answer, f"token for {' '.join(scopes) or home}", home.authority)
            raise error if isinstance(error, RegistryError) else _refused(error, answer)
        return _parsed(answer)

    def _get(
        self, realm: httpx.URL, service: str, scopes: tuple[str, ...], credentials: Credentials
    ) -> Answer:
        query = [*realm.params.multi_items(), *(("scope", scope) for scope in scopes)]
        if service:
            query.append(("service", service))
        if credentials.username:
            query.append(("account", credentials.username))
        fields = {"Authorization": credentials.basic} if credentials.basic else {}
        return self._ask("GET", realm.copy_with(query=urlencode(query).encode()), fields, None)

    def _exchange(self, realm: httpx.URL, service: str, scopes: tuple[str, ...], token: str) -> Answer:
        form = {
            "grant_type": "refresh_token",
            "client_id": _CLIENT_ID,
            "service": service,
            "scope": " ".join(scopes),
            "refresh_token": token,
        }
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", realm, fields, urlencode(form).encode())


def _refused(error: OciError, answer: Answer) -> Unauthorized:
    return Unauthorized(error.message, url=answer.where, status=answer.status)


def _parsed(answer: Answer) -> tuple[str, float]:
    """The token, and for how many seconds it is good."""
    where = answer.where
    fields = answer.json("token")
    value = fields.get("token") or fields.get("access_token")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise RegistryError(
            f"the token service {where} answered without a usable token", url=where, status=200
        )
    life = fields.get("expires_in")
    if not isinstance(life, int | float) or isinstance(life, bool) or life <= 0:
        life = _DEFAULT_LIFE
    return value, float(life)


def scope(repository: str, *actions: str) -> str:
    """The name of a permission, as token services want it."""
    return f"repository:{repository}:{','.join(actions)}"


def merged(scopes: Iterable[str]) -> tuple[str, ...]:
    """Scopes with one entry for each resource, in the order of first mention.

    The order matters: some token services honour only the first scope, so what a request needs most comes
    first.
    """
    actions: dict[str, dict[str, None]] = {}
    for item in scopes:
        resource, _, names = item.rpartition(":")
        if resource:
            actions.setdefault(printable(resource), {}).update(dict.fromkeys(printable(names).split(",")))
    return tuple(f"{resource}:{','.join(sorted(names))}" for resource, names in actions.items())


def _covers(held: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether all that is wanted is held."""
    actions = {resource: set(names.split(",")) for resource, _, names in (s.rpartition(":") for s in held)}
    return all(
        set(names.split(",")) <= actions.get(resource, set())
        for resource, _, names in (item.rpartition(":") for item in wanted)
    )
