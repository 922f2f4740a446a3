"""The one request layer: every byte to and from a registry passes here.

It alone knows of retries and waits, of redirects and which origin gets to see what, of limits on what is
read, and of the warnings and quotas that responses carry. What it is asked to do is a `Call`, what comes
back is a `Live` response, or an `Answer` that has been read whole.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocitool.errors import RegistryError, Unreachable
from ocitool.events import Noted, OnEvent, Retrying
from ocitool.registry import headers
from ocitool.registry.calls import Call, Live
from ocitool.registry.origins import Origin, follow
from ocitool.registry.responses import LACKS_CONTENT, REDIRECTS, TRANSIENT, Answer, error_of
from ocitool.registry.sockets import PlainAnswer
from ocitool.registry.text import printable, redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from ocitool.errors import OciError
    from ocitool.registry.auth import Ask
    from ocitool.registry.config import ClientConfig
    from ocitool.registry.connections import Connections, Reply
    from ocitool.registry.endpoint import Endpoint

_MAX_REDIRECTS: Final = 10
_NEWER_AUTHORIZATIONS: Final = 2
"""With a token, with a newer one: whoever refuses that will go on refusing."""

_ERROR_BYTES: Final = 64 << 10
_TOKEN_BYTES: Final = 1 << 20
_LONGEST_BACKOFF: Final = 30.0
_RESENDING: Final = frozenset({307, 308})
_READING: Final = frozenset({"GET", "HEAD"})
_FINAL: Final = frozenset(range(200, 600)) - TRANSIENT - REDIRECTS


class Transport:
    """Sends calls. Safe to use from several threads."""

    def __init__(self, config: ClientConfig, connections: Connections, on_event: OnEvent) -> None:
        self._config = config
        self._connections = connections
        self._on_event = on_event
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._noted: set[str] = set()

    def close(self) -> None:
        """End every wait and every connection."""
        self._closing.set()
        self._connections.close()

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            Unreachable: the client is closed meanwhile.
        """
        if self._closing.wait(seconds):
            raise Unreachable("the client has been closed")

    def note(self, message: str) -> None:
        """Tell the listener something, once."""
        with self._lock:
            if message in self._noted:
                return
            self._noted.add(message)
        self._on_event(Noted(message))

    def request(self, endpoint: Endpoint, call: Call) -> Answer:
        """Send a call and read what comes back; a connection lost on the way is one more try.

        Raises:
            OciError: the status is not one of `call.expect`, or there was no answer.
        """
        for attempt in range(1, self._config.retries + 1):
            live = self._expected(endpoint, call)
            try:
                return Answer(live, live.read(call.limit))
            except Unreachable as error:
                if not call.repeatable or attempt == self._config.retries:
                    raise
                failure = error
            finally:
                live.reply.close()
            self.back_off(call.what, failure, attempt)
        raise AssertionError  # pragma: no cover - the last attempt returned or raised

    @contextmanager
    def open(self, endpoint: Endpoint, call: Call) -> Iterator[Live]:
        """Send a call; the response's body is read inside the `with` block.

        Raises:
            OciError: as `request`.
        """
        live = self._expected(endpoint, call)
        try:
            yield live
        finally:
            live.reply.close()

    def _expected(self, endpoint: Endpoint, call: Call) -> Live:
        """Send a call until its answer is what the caller understands, who closes it."""
        live = self._persist(endpoint, call)
        if live.status in call.expect:
            return live
        try:
            raise error_of(self._failed(live), call.what, endpoint.name)
        finally:
            live.reply.close()

    def _failed(self, live: Live) -> Answer:
        """An error's body matters little: a part of it will do."""
        body = b""
        try:
            for chunk in live.body():
                body += chunk[: _ERROR_BYTES - len(body)]
                if len(body) >= _ERROR_BYTES:
                    break
        except Unreachable:
            pass
        return Answer(live, body)

    def _persist(self, endpoint: Endpoint, call: Call) -> Live:
        """Repeat a call while that may help."""
        lost = False
        for attempt in range(1, self._config.retries + 1):
            last = attempt == self._config.retries or not call.repeatable
            try:
                live = self._follow(endpoint, call)
            except Unreachable as error:
                if last or not error.temporary:
                    raise
                lost = True
                self.back_off(call.what, error, attempt)
                continue
            if last or live.status in call.expect or not self._may_pass(call, live):
                return Live(live.reply, live.at_home, repeated=lost)
            failure = error_of(self._failed(live), call.what, endpoint.name)
            live.reply.close()
            if isinstance(failure, RegistryError) and LACKS_CONTENT in failure.codes:
                raise failure  # whoever sent the manifest knows how long to wait for what it names
            self.back_off(call.what, failure, attempt, headers.retry_after(live.headers, time.time()))
        raise AssertionError  # pragma: no cover - the last attempt returned or raised

    def _may_pass(self, call: Call, live: Live) -> bool:
        """Whether an answer may be another one in a while."""
        if not live.at_home and live.status in {401, 403}:
            # The signature of a storage's URL has run out; the registry makes a new one.
            return call.method == "GET" and isinstance(call.target, str)
        if live.status == 429 and headers.retry_after(live.headers, time.time()) is None:
            quota = headers.rate_limit(live.headers)
            return quota is None or quota.remaining > 0  # a used-up quota takes hours
        return live.status in TRANSIENT

    def back_off(self, what: str, error: OciError, attempt: int, asked: float | None = None) -> None:
        """Wait before another try, and say so.

        Args:
            what: what is tried again.
            error: why.
            attempt: how often it has been tried without getting anywhere, from 1.
            asked: the seconds that the registry asked for.

        Raises:
            RegistryError: it asks for more than anyone would wait.
        """
        if asked is not None and asked > self._config.longest_wait:
            raise RegistryError(
                f"{error.message}; it asks to wait {asked:.0f} seconds",
                hint=f"try again in {asked / 60:.0f} minutes",
                status=getattr(error, "status", 0),
                temporary=True,
            ) from error
        backoff = min(_LONGEST_BACKOFF, self._config.retry_delay * 2 ** (attempt - 1))
        # Jitter, so that a crowd of clients does not come back as one.
        delay = asked if asked is not None else backoff * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._on_event(Retrying(what, error.message, delay))
        self.pause(delay)

    def _follow(self, endpoint: Endpoint, call: Call) -> Live:
        """Send a call, and follow where its answers lead."""
        live = self._authorized(endpoint, call, call.target)
        for _ in range(_MAX_REDIRECTS):
            if live.status not in REDIRECTS:
                return live
            try:
                target = self._redirected(endpoint, call, live)
            except BaseException:
                live.reply.close()
                raise
            if target is None:
                return live
            live.discard()
            live = self._authorized(endpoint, call, target)
        live.reply.close()
        raise RegistryError(f"{call.what}: {endpoint.name} redirects more than {_MAX_REDIRECTS} times")

    def _redirected(self, endpoint: Endpoint, call: Call, live: Live) -> httpx.URL | None:
        """Where a redirect leads, or None for the end of the way."""
        location = live.headers.get("location")
        if location is None:
            return None
        target = follow(live.url, location, endpoint.origin, "the redirect")
        leaves = Origin.of(target) != Origin.of(live.url)
        if call.method == "HEAD" and leaves:
            # Content that has a place is there. The place's URL may be signed for GET alone.
            return None
        if call.method in _READING:
            refused = call.bare and leaves
        else:
            refused = call.bare or leaves or live.status not in _RESENDING or not call.repeatable
        if refused:
            raise RegistryError(
                f"{call.what}: {call.method} {live.where} is redirected to {redacted(str(target))}",
                hint="such a request stays where it was sent: it carries what is meant for that server alone",
            )
        return target

    def _authorized(self, endpoint: Endpoint, call: Call, target: str | httpx.URL) -> Live:
        """Send a call to one place, with the authorization that it wants there."""
        at_home = isinstance(target, str) or Origin.of(target) in endpoint.candidates
        if call.bare or not at_home:
            return self._send(endpoint, call, target, "")
        authorization = endpoint.auth.authorization(call.repository, call.scopes)
        live = self._send(endpoint, call, target, authorization)
        newer = 0
        while live.status == 401 and newer < _NEWER_AUTHORIZATIONS:
            try:
                challenge = self._challenge(endpoint, live)
                again = self._answered(endpoint, call, challenge, authorization)
            except BaseException:
                live.reply.close()
                raise
            if not again:
                break
            live.discard()
            if not call.repeatable:
                raise RegistryError(
                    f"{call.what}: the authorization ran out on the way", status=401, temporary=True
                )
            newer += again != authorization
            authorization = again
            live = self._send(endpoint, call, target, authorization)
        return live

    def _answered(self, endpoint: Endpoint, call: Call, challenge: Reply, authorization: str) -> str:
        """The authorization that answers a challenge."""
        try:
            return endpoint.auth.answer(challenge, authorization, call.repository, call.scopes)
        except Unreachable as error:
            # The token service has been asked as often as anyone would; the call is not to multiply that.
            error.temporary = False
            raise

    def _challenge(self, endpoint: Endpoint, live: Live) -> Reply:
        """The response that says what a 401 wants; old registries say it only at the front door."""
        if endpoint.auth.challenged or "www-authenticate" in live.headers:
            return live.reply
        call = Call(method="GET", target="/v2/", what=f"challenge of {endpoint.name}")
        door = self._send(endpoint, call, call.target, "")
        door.discard()
        return door.reply

    def _send(self, endpoint: Endpoint, call: Call, target: str | httpx.URL, authorization: str) -> Live:
        """Send a call by https, or by http where that is allowed and https is not spoken."""
        if not isinstance(target, str):
            origin, path = Origin.of(target), target.raw_path.decode()
            return self._exchange(endpoint, call, origin, path, authorization)
        *earlier, last = endpoint.candidates
        for origin in earlier:
            with suppress(PlainAnswer):
                self._knock(endpoint, origin)
                return self._exchange(endpoint, call, origin, target, authorization)
        return self._exchange(endpoint, call, last, target, authorization)

    def _knock(self, endpoint: Endpoint, origin: Origin) -> None:
        """Find out whether TLS is spoken at an origin, once for all threads that want to know.

        Raises:
            PlainAnswer: it is not.
        """
        with endpoint.unsettled:
            if endpoint.candidates == (origin,):
                return
            if origin not in endpoint.candidates:
                raise PlainAnswer(f"{endpoint.origin} has answered")
            try:
                if self._connections.knock(endpoint.route(origin)):
                    endpoint.settle(origin)
            except PlainAnswer as answer:
                if not answer.temporary:  # somebody is there, and speaks something else
                    endpoint.settle(endpoint.candidates[-1])
                raise

    def _exchange(
        self, endpoint: Endpoint, call: Call, origin: Origin, path: str, authorization: str
    ) -> Live:
        """One request and its response."""
        fields = {
            "User-Agent": self._config.user_agent,
            "Accept": "*/*",
            # What a registry stores is what is hashed: nothing may be packed on the way.
            "Accept-Encoding": "identity",
            **call.headers,
        }
        if authorization:
            fields["Authorization"] = authorization
        if call.body is not None:
            fields["Content-Length"] = str(len(call.body) if isinstance(call.body, bytes) else call.length)
        secret = "Authorization" in fields or (call.bare and call.body is not None)
        if secret and not endpoint.may_see_secrets(origin):
            raise RegistryError(
                f"{call.what}: credentials are not sent to {origin} without TLS",
                hint="--plain-http says that this network can be trusted",
            )
        route = endpoint.route(origin)
        reply = self._connections.send(call.method, path, fields, call.body, route, commits=call.commits)
        live = Live(reply, at_home=origin in endpoint.candidates and not call.bare)
        try:
            self._regard(endpoint, origin, live)
        except BaseException:
            reply.close()
            raise
        return live

    def _regard(self, endpoint: Endpoint, origin: Origin, live: Live) -> None:
        """Look at what every response may carry."""
        coding = live.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise RegistryError(
                f"{live.where} came in the coding {printable(coding, 60)}, not as it is",
                url=live.where,
                status=live.status,
            )
        if not live.at_home:
            return
        endpoint.settle(origin)
        for text in headers.warnings(live.headers.all("warning")):
            self.note(f"{endpoint.name}: {text}")
        if quota := headers.rate_limit(live.headers):
            endpoint.rate_limit = quota

    def ask(self, endpoint: Endpoint) -> Ask:
        """The way to a registry's token service."""

        def ask(method: str, url: httpx.URL, fields: Mapping[str, str], body: bytes | None) -> Answer:
            call = Call(
                method=method,
                target=url,
                what=f"token of {endpoint.name}",
                headers=fields,
                body=body,
                bare=True,
                expect=_FINAL,
                limit=_TOKEN_BYTES,
            )
            return self.request(endpoint, call)

        return ask
