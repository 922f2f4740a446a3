"""From a registry's answer to one typed error (distribution-spec, "Error Codes")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ocitool import strictjson
from ocitool.errors import InvalidContent, NotFound, OciError, RegistryError, Unauthorized, Unsupported
from ocitool.registry import headers
from ocitool.registry.text import printable

if TYPE_CHECKING:
    import httpx

    from ocitool.registry.calls import Live
    from ocitool.registry.headers import Fields

TRANSIENT: Final = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
"""The statuses after which the same request may succeed a little later."""

LACKS_CONTENT: Final = "MANIFEST_BLOB_UNKNOWN"
"""The code for a manifest that names what the repository does not have."""

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_NOT_FOUND_CODES: Final = frozenset({"MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body has been read whole."""

    live: Live
    body: bytes

    @property
    def method(self) -> str:
        """That of the request."""
        return self.live.reply.method

    @property
    def url(self) -> httpx.URL:
        """Where the response came from."""
        return self.live.url

    @property
    def where(self) -> str:
        """The same, fit to be shown."""
        return self.live.where

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.live.status

    @property
    def headers(self) -> Fields:
        """The header fields."""
        return self.live.headers

    @property
    def repeated(self) -> bool:
        """Whether an earlier request was lost, so that this one may have found its effect."""
        return self.live.repeated

    def json(self, what: str) -> dict[str, Any]:
        """The body as an object.

        Raises:
            RegistryError: it is none.
        """
        try:
            return strictjson.load_object(self.body, what)
        except InvalidContent as error:
            raise RegistryError(
                f"{self.method} {self.where} did not answer with JSON: {error.message}",
                method=self.method,
                url=self.where,
                status=self.status,
            ) from error

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters."""
        return headers.media_type(self.headers.get("content-type", ""))


def error_of(answer: Answer, what: str, registry: str) -> OciError:
    """The error that an answer means.

    Args:
        answer: of the registry, or of its token service.
        what: what was wanted ("manifest latest of host/name").
        registry: who was asked, as `ocitool login` takes it.
    """
    codes, messages = _explained(answer.body)
    said = f": {'; '.join(messages)}" if messages else ""
    url = answer.where
    text = f"{what}: {answer.method} {url} answered {answer.status}{_named(codes)}{said}"
    if answer.status in {401, 403}:
        return Unauthorized(
            text,
            hint=_way_in(answer, registry),
            method=answer.method,
            url=url,
            status=answer.status,
            codes=codes,
        )
    # Some registries say 400 for what they don't have; their codes are clearer than that. A manifest whose
    # blobs are missing (MANIFEST_BLOB_UNKNOWN) is there, and refused.
    absent = answer.status in {404, 410} or (400 <= answer.status < 500 and _NOT_FOUND_CODES & set(codes))
    if absent and LACKS_CONTENT not in codes:
        return NotFound(f"{what} is not there ({answer.status}{_named(codes)} from {url}){said}")
    if answer.status == 405 or (answer.status in {400, 501} and "UNSUPPORTED" in codes):
        return Unsupported(
            f"{what}: the registry does not do this ({answer.method} {url}: {answer.status}){said}"
        )
    # docker-registry says 500 as well where it refuses a manifest for a layer that is elsewhere.
    temporary = answer.status in TRANSIENT and LACKS_CONTENT not in codes
    return RegistryError(
        text,
        hint="the registry may answer later" if temporary else "",
        method=answer.method,
        url=url,
        status=answer.status,
        codes=codes,
        temporary=temporary,
    )


def _way_in(answer: Answer, registry: str) -> str:
    """What may help against a 401 or 403."""
    wanted = {challenge.scheme for challenge in headers.challenges(answer.headers.all("www-authenticate"))}
    if wanted and not wanted & {"basic", "bearer"}:
        return f"it wants {', '.join(sorted(wanted))} for authentication, and ocitool has Basic and Bearer"
    return f"is the name right, and have you logged in? ocitool login {registry}"


def _named(codes: tuple[str, ...]) -> str:
    return f" {', '.join(codes)}" if codes else ""


def _explained(body: bytes) -> tuple[tuple[str, ...], list[str]]:
    """Codes and messages of an error body, which may have any format."""
    try:
        errors = strictjson.load_object(body, "error body").get("errors")
    except InvalidContent:
        errors = None
    if not isinstance(errors, list):
        text = body[:2000].decode("utf-8", "replace").strip()
        return (), [] if not text or text.startswith("<") else [printable(text, 200)]
    items = [item for item in errors[:10] if isinstance(item, dict)]
    codes = tuple(printable(str(item["code"]), 60) for item in items if item.get("code"))
    messages = [printable(str(item["message"]), 300) for item in items if item.get("message")]
    return codes, messages
