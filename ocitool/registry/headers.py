"""Header fields, read: pure functions from what a server sent to typed values.

None of them raises on what a stranger may send; what does not follow the grammar is as if it were absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ocitool.registry.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# RFC 9110, 5.6.2: token; 5.6.4: quoted-string; 11.2: token68.
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a grammar, not a secret
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_SEPARATORS: Final = re.compile(r"[ \t,]*")
_PARAMETER: Final = re.compile(rf"({_TOKEN})[ \t]*=[ \t]*({_QUOTED}|{_TOKEN})")
_SCHEME: Final = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_TOKEN68: Final = re.compile(r"[ \t]+([A-Za-z0-9._~+/-]+=*)(?=[ \t]*(?:,|$))")
_SKIPPED: Final = re.compile(rf"(?:{_QUOTED}|[^,])*", re.DOTALL)
_LINK: Final = re.compile(rf'<([^<>]*)>((?:[ \t]*;[^,;"<]*(?:{_QUOTED})?)*)')
_LINK_PARAMETER: Final = re.compile(rf";[ \t]*({_TOKEN})[ \t]*=[ \t]*({_QUOTED}|[^\s;,]+)")
_CONTENT_RANGE: Final = re.compile(r"bytes[ \t]+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)
_UPLOAD_RANGE: Final = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_WARNING: Final = re.compile(rf"299[ \t]+-[ \t]+({_QUOTED})")
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_QUOTA: Final = re.compile(r"([0-9]{1,12})(?:;w=([0-9]{1,9}))?(?:[;,].*)?")

_MAX_LENGTH: Final = 16 << 10
# distribution-spec, "Warnings": "A registry MUST NOT send more than 4096 bytes of warning data from all
# headers combined."
_MAX_WARNING: Final = 4096
_EPOCH_FROM: Final = 300_000_000
"""Ten years in seconds: a longer wait than that is the time itself, as some servers send it."""


class Fields(Mapping[str, str]):
    """The fields of a response's header, by their names in any case; those of one name are joined.

    RFC 9110, 5.3: "A recipient MAY combine multiple field lines within a field section that have the same
    field name into one field line".
    """

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(_text(value))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def all(self, name: str) -> list[str]:
        """The values of a field that may stand several times, each as it came."""
        return self._values.get(name.lower(), [])


def _text(value: bytes) -> str:
    """A field's value: UTF-8, or where it is not that, what it was before there was UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in which a server lets itself be convinced (RFC 9110, 11.3)."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Which bytes of how many a response holds; both ends are part of it."""

    first: int
    last: int
    total: int | None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many pulls a registry allows in how many seconds, and how many of them are left."""

    limit: int
    remaining: int
    window: int


def challenges(values: Iterable[str]) -> list[Challenge]:
    """Read WWW-Authenticate: several challenges may stand in one field, in several, or in both."""
    return [challenge for value in values for challenge in _challenges(value[:_MAX_LENGTH])]


def _challenges(value: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while (at := _end(_SEPARATORS, value, at)) < len(value):
        if (match := _PARAMETER.match(value, at)) and found:
            found[-1][1].setdefault(match[1].lower(), _unquote(match[2]))
            at = match.end()
        elif match := _SCHEME.match(value, at):
            found.append((match[1].lower(), {}))
            at = _end(_TOKEN68, value, match.end())
        else:
            at = _end(_SKIPPED, value, at)  # at least one character, because none of _SEPARATORS is here
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _end(pattern: re.Pattern[str], value: str, at: int) -> int:
    match = pattern.match(value, at)
    return match.end() if match else at


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if value.startswith('"') else value


def next_link(values: Iterable[str]) -> str:
    """The target of the Link with the relation type `next`, or ""."""
    for value in values:
        for match in _LINK.finditer(value[:_MAX_LENGTH]):
            parameters = {name.lower(): _unquote(text) for name, text in _LINK_PARAMETER.findall(match[2])}
            if "next" in parameters.get("rel", "").lower().split():
                return match[1].strip()
    return ""


def content_range(values: list[str]) -> ContentRange | None:
    """Read Content-Range; None if there is none, more than one, or one that contradicts itself."""
    match = _CONTENT_RANGE.fullmatch(values[0].strip()) if len(values) == 1 else None
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)


def upload_offset(value: str) -> int | None:
    """How many bytes of an upload the registry has, from its `Range: 0-<end-of-range>`.

    "0-0" is what registries say of an upload with no bytes, though it should mean one: 0 is returned, and a
    chunk that then starts one byte too early is refused by the registry, not stored wrongly.
    """
    match = _UPLOAD_RANGE.fullmatch(value.strip())
    if match is None:
        return None
    end = int(match[1])
    return end + 1 if end else 0


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """How many seconds a server asks to wait.

    Args:
        headers: the response's; `Retry-After` in seconds, as a date or as a time since 1970, or
            `X-Retry-After`.
        now: seconds since 1970.
    """
    value = (headers.get("retry-after") or headers.get("x-retry-after") or "").strip()
    if _NUMBER.fullmatch(value):
        seconds = float(value)
        delay = seconds - now if seconds > _EPOCH_FROM else seconds
    else:
        from email.utils import parsedate_to_datetime  # all of `email`, for what few servers send

        try:
            delay = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return delay if delay >= 0 else None


def warnings(values: Iterable[str]) -> list[str]:
    """The texts of `Warning: 299 - "…"`, fit to be shown."""
    joined = ", ".join(values)[:_MAX_WARNING]
    return [printable(_unquote(text), _MAX_WARNING) for text in _WARNING.findall(joined)]


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Read `RateLimit-Limit: 100;w=21600` and `RateLimit-Remaining`."""
    limit = _QUOTA.fullmatch(headers.get("ratelimit-limit", "").strip())
    remaining = _QUOTA.fullmatch(headers.get("ratelimit-remaining", "").strip())
    if limit is None or remaining is None:
        return None
    return RateLimit(int(limit[1]), int(remaining[1]), int(limit[2] or 0))


def media_type(value: str) -> str:
    """A Content-Type without its parameters.

    distribution-spec, "Pulling manifests": "The client SHOULD ignore parameters on the `Content-Type`
    header."
    """
    return value.partition(";")[0].strip().lower()
