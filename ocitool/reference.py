"""References: how people name an image in a registry (distribution-spec, "Pulling manifests")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ocitool.digest import Digest
from ocitool.errors import InvalidReference, OciError

# distribution-spec, "Pulling manifests": "Throughout this document, `<name>` MUST match the following
# regular expression: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# distribution-spec, "Pulling manifests": "Throughout this document, `<reference>` as a tag MUST be at most
# 128 characters in length and MUST match the following regular expression:
# `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`"
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::([0-9]{{1,5}}))?")
_DIGEST: Final = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_HEX_NAME: Final = re.compile(r"[a-f0-9]{64}")

# distribution-spec, "Pulling manifests": "Many clients impose a limit of 255 characters on the length of the
# concatenation of the registry hostname (and optional port), `/`, and `<name>` value."
_MAX_LENGTH: Final = 255

DOCKER_HUB: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_DOCKER_HUB_ALIASES: Final = frozenset({"index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A registry, a repository in it, and a tag or a digest or both; cannot be built invalid.

    Where both stand, the digest decides and the tag is what people call it. Docker's registry is always
    `docker.io`, and a name of one part there is always in `library/`, so that equal names are equal.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __post_init__(self) -> None:
        match = _REGISTRY.fullmatch(self.registry)
        if match is None or int(match[1] or 0) > 65535 or not _looks_like_host(self.registry):
            raise InvalidReference(f"{self.registry!r:.160} is not a registry's host or host:port")
        if self.registry in _DOCKER_HUB_ALIASES:
            object.__setattr__(self, "registry", DOCKER_HUB)
        if self.registry == DOCKER_HUB and "/" not in self.repository:
            object.__setattr__(self, "repository", f"library/{self.repository}")
        if not _REPOSITORY.fullmatch(self.repository):
            hint = "repository names are lower-case" if self.repository != self.repository.lower() else ""
            raise InvalidReference(f"{self.repository!r:.160} is not a repository name", hint=hint)
        if len(self.registry) + 1 + len(self.repository) > _MAX_LENGTH:
            raise InvalidReference(f"{self.name!r:.160} is longer than {_MAX_LENGTH} characters")
        if self.tag:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as docker does: `alpine` is `docker.io/library/alpine`.

        Without tag and digest the reference has neither: `ref` then says `latest`.

        Raises:
            InvalidReference: the text does not follow the grammar.
        """
        try:
            return cls._parse(text)
        except OciError as error:
            raise InvalidReference(
                f"{text!r:.160} is not an image reference: {error.message}", hint=error.hint
            ) from error

    @classmethod
    def _parse(cls, text: str) -> Reference:
        if not text:
            raise InvalidReference("it is empty")
        if "://" in text:
            raise InvalidReference(
                "it is a URL",
                hint="leave out what stands before ://; for a registry without TLS, --plain-http",
            )
        rest, at, digest = text.partition("@")
        name, tag = rest, ""
        colon = rest.rfind(":")
        if colon > rest.rfind("/"):
            name, tag = rest[:colon], rest[colon + 1 :]
            check_tag(tag)
        if _HEX_NAME.fullmatch(text):
            raise InvalidReference("64 hexadecimal digits alone are an image ID, not a name")
        registry, slash, repository = name.partition("/")
        if not slash or not _looks_like_host(registry):
            registry, repository = DOCKER_HUB, name
        return cls(registry, repository, tag, Digest.parse(digest) if at else None)

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def ref(self) -> str:
        """What to ask the repository for: the digest, else the tag, else `latest`."""
        return str(self.digest) if self.digest else self.tag or DEFAULT_TAG

    @property
    def tagged(self) -> str:
        """The full name with its tag, as it is kept in a layout; `latest` where there is no tag."""
        return f"{self.name}:{self.tag or DEFAULT_TAG}"

    def __str__(self) -> str:
        if self.digest:
            return f"{self.name}{':' + self.tag if self.tag else ''}@{self.digest}"
        return self.tagged


def _looks_like_host(text: str) -> bool:
    """Docker's rule: what stands before the first slash is a host if it could not be a user's name."""
    return "." in text or ":" in text or text == "localhost" or text != text.lower()


def registry_of(text: str) -> str:
    """The registry that a person names, by its host and port or by its URL, as docker has it.

    Raises:
        InvalidReference: it is neither.
    """
    bare = re.sub("^(https?|docker)://", "", text)
    host, _, path = bare.partition("/")
    if path.strip("/") not in {"", "v1", "v2"}:
        raise InvalidReference(
            f"{text!r:.160} is more than a registry's host or host:port", hint=f"write {host}"
        )
    return Reference(host, "any").registry


def check_tag(tag: str) -> None:
    """Make sure that a tag follows the grammar.

    Raises:
        InvalidReference: it does not.
    """
    if not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"{tag!r:.160} is not a tag",
            hint="a tag has up to 128 letters, digits, dots, dashes and underscores",
        )


def is_digest(ref: str) -> bool:
    """Whether a name is a bare digest, and not a tag or the full name that an image has in a layout."""
    return _DIGEST.fullmatch(ref) is not None
