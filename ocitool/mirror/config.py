"""The mirror file, version 1: what should be where. docs/reference/mirror-file.md describes every field."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ocitool.errors import InvalidReference
from ocitool.mirror import yamltext
from ocitool.mirror.budgets import PullLimit, rate
from ocitool.mirror.fields import Field, Problems
from ocitool.mirror.naming import Template
from ocitool.mirror.patterns import Names, Pattern
from ocitool.mirror.semver import Range
from ocitool.platforms import Platform
from ocitool.reference import Reference, check_tag, is_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Sparse = Literal["auto", "always", "never"]
Kind = Literal["image", "repository", "registry"]

_KINDS: Final[tuple[Kind, ...]] = ("image", "repository", "registry")
_COMMON: Final = ("to", "platforms", "sparse", "referrers", "digest-tags")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


_ALL: Final = Names()


@dataclass(frozen=True, slots=True)
class Options:
    """What every rule may say for itself, and `defaults` for all of them.

    Attributes:
        to: where images go; None where nothing says so, which a rule can't leave at that.
        platforms: the platforms to take of an index; none means all.
        sparse: how a part of an index is written: with its own digest where the destination takes that
            (auto), or fails otherwise (always), or as a new index (never).
        referrers: take along what refers to an image.
        digest_tags: take along `sha256-….sig`, `.att`, `.sbom` and their like.
    """

    to: Template | None = None
    platforms: tuple[Platform, ...] = ()
    sparse: Sparse = "auto"
    referrers: bool = True
    digest_tags: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `sources`.

    Attributes:
        path: where it stands in the file, for messages.
        kind: image, repository or registry.
        source: the image, a repository without a tag, or a registry's host.
        tags: which tags of a repository.
        repositories: which repositories of a registry.
    """

    path: str
    kind: Kind
    source: Reference | str
    options: Options
    tags: Names = _ALL
    repositories: Names = _ALL


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where a registry's credentials are: names, never the values."""

    username_env: str = ""
    password_env: str = ""
    helper: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """How to talk to one registry, where that differs from the command line."""

    credentials: Credentials = Credentials()
    tls_verify: bool | None = None
    plain_http: bool | None = None
    ca_file: str = ""
    cert_dir: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a run may ask for.

    Attributes:
        jobs: images on their way at once.
        rate: bytes a second from all sources together; 0 is no limit.
        pulls: manifests that may be read from a host within some time.
        max_delete: what a run with prune may delete: a number of tags, or a share of them (`5%`).
    """

    jobs: int = 4
    rate: int = 0
    pulls: Mapping[str, PullLimit] = field(default_factory=dict)
    max_delete: str = "10%"


@dataclass(frozen=True, slots=True)
class MirrorFile:
    """A mirror file, checked."""

    rules: tuple[Rule, ...]
    skip: tuple[Pattern, ...] = ()
    limits: Limits = Limits()
    registries: Mapping[str, Registry] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What an imported file says that has no meaning here."""


def parse(raw: bytes, what: str = "mirror file") -> MirrorFile:
    """Read a mirror file.

    Raises:
        InvalidContent: it has problems; each is a note of the error, with its path.
        UnsafeContent: it is larger, deeper or more repetitive than any mirror file.
    """
    problems = Problems(what)
    result = read(Field(yamltext.load(raw, what), "", problems))
    problems.raise_any()
    return result


def read(document: Field) -> MirrorFile:
    """Read a document of our own; problems go where the field's go."""
    fields = document.fields("version", "defaults", "sources", "skip", "limits", "registries")
    if "version" not in fields:
        document.problem("needs `version: 1`")
    else:
        fields["version"].parsed(_version, None)
    defaults = Options()
    if "defaults" in fields:
        defaults = _options(fields["defaults"].fields(*_COMMON), defaults)
    sources = list(fields["sources"].items()) if "sources" in fields else []
    if not sources:
        document.problem("needs `sources`, a list with at least one entry")
    rules = [_rule(source, defaults) for source in sources]
    return MirrorFile(
        tuple(rule for rule in rules if rule),
        skip=fields["skip"].all_parsed(Pattern.glob) if "skip" in fields else (),
        limits=_limits(fields["limits"]) if "limits" in fields else Limits(),
        registries=dict(_registry(*pair) for pair in fields["registries"].entries())
        if "registries" in fields
        else {},
    )


def _version(text: str) -> None:
    if text != "1":
        raise InvalidReference(f"{text!r:.40} is not a version that is known; 1 is")


def _options(fields: Mapping[str, Field], defaults: Options) -> Options:
    values: dict[str, Any] = {}
    if "to" in fields:
        values["to"] = fields["to"].parsed(Template.parse, None)
    if "platforms" in fields:
        values["platforms"] = fields["platforms"].all_parsed(Platform.parse)
    if "sparse" in fields:
        values["sparse"] = fields["sparse"].choice("auto", "always", "never")
    if "referrers" in fields:
        values["referrers"] = fields["referrers"].boolean(default=True)
    if "digest-tags" in fields:
        values["digest_tags"] = fields["digest-tags"].boolean(default=True)
    return Options(
        to=values.get("to", defaults.to),
        platforms=values.get("platforms", defaults.platforms),
        sparse=values.get("sparse", defaults.sparse),
        referrers=values.get("referrers", defaults.referrers),
        digest_tags=values.get("digest_tags", defaults.digest_tags),
    )


def _rule(source: Field, defaults: Options) -> Rule | None:
    fields = source.fields(*_KINDS, "tags", "repositories", *_COMMON)
    kinds = [kind for kind in _KINDS if kind in fields]
    if len(kinds) != 1:
        source.problem("needs exactly one of `image`, `repository` and `registry`")
        return None
    kind = kinds[0]
    if kind == "image" and "tags" in fields:
        fields["tags"].problem("an image has its tag in its name; `tags` choose among those of a repository")
    if kind != "registry" and "repositories" in fields:
        fields["repositories"].problem("only a registry has `repositories`")
    options = _options(fields, defaults)
    if options.to is None and "to" not in fields:
        source.problem("says not where to: neither it nor `defaults` has `to`")
    named: Reference | str | None = fields[kind].parsed(_SOURCES[kind], None)
    tags = names(fields["tags"], _tag_or_digest) if "tags" in fields else Names()
    repositories = names(fields["repositories"], str) if "repositories" in fields else Names()
    return Rule(source.path, kind, named, options, tags, repositories) if named else None


def _repository(text: str) -> Reference:
    reference = Reference.parse(text)
    if reference.tag or reference.digest:
        raise InvalidReference(
            f"{text!r:.80} has a tag or a digest; `image` takes one, `tags` choose several"
        )
    return reference


def host(text: str) -> str:
    """A registry's host.

    Raises:
        InvalidReference: it is none.
    """
    if "/" in text:
        raise InvalidReference(f"{text!r:.80} is not a registry's host or host:port")
    return Reference(text, "any/name").registry


_SOURCES: Final[dict[Kind, Callable[[str], Reference | str]]] = {
    "image": Reference.parse,
    "repository": _repository,
    "registry": host,
}


def _tag_or_digest(text: str) -> str:
    if any(char in text for char in "*?^$|"):
        raise InvalidReference(f"{text!r:.80} is not a tag; patterns are named: {{glob: …}} or {{regex: …}}")
    if not is_digest(text):
        check_tag(text)
    return text


def names(chosen: Field, exact: Any) -> Names:
    """A choice of names: a list of exact ones, or a mapping that says how to choose."""
    if not isinstance(chosen.value, dict):
        return Names(exact=chosen.all_parsed(exact))
    fields = chosen.fields("exact", "glob", "regex", "semver", "exclude", "exclude-regex", "latest")
    return Names(
        exact=fields["exact"].all_parsed(exact) if "exact" in fields else (),
        patterns=_patterns(fields, "glob", "regex"),
        ranges=fields["semver"].all_parsed(Range.parse) if "semver" in fields else (),
        exclude=_patterns(fields, "exclude", "exclude-regex"),
        latest=fields["latest"].integer(0, least=1) if "latest" in fields else 0,
    )


def _patterns(fields: Mapping[str, Field], glob: str, regex: str) -> tuple[Pattern, ...]:
    globs = fields[glob].all_parsed(Pattern.glob) if glob in fields else ()
    return globs + (fields[regex].all_parsed(Pattern.regex) if regex in fields else ())


def _limits(limits: Field) -> Limits:
    fields = limits.fields("jobs", "rate", "pulls", "max-delete")
    default = Limits()
    pulls = dict(fields["pulls"].entries()) if "pulls" in fields else {}
    nothing = PullLimit(1, 1)
    return Limits(
        jobs=fields["jobs"].integer(default.jobs, least=1, most=64) if "jobs" in fields else default.jobs,
        rate=fields["rate"].parsed(rate, 0) if "rate" in fields else 0,
        pulls={name: limit.parsed(PullLimit.parse, nothing) for name, limit in pulls.items()},
        max_delete=fields["max-delete"].parsed(share, default.max_delete)
        if "max-delete" in fields
        else default.max_delete,
    )


def share(text: str) -> str:
    """A number, or a percentage up to 100.

    Raises:
        InvalidReference: it is neither.
    """
    match = re.fullmatch(r"([0-9]{1,9})(%?)", text)
    if match is None or (match[2] and int(match[1]) > 100):
        raise InvalidReference(f"{text!r:.40} is neither a number nor a percentage, as 20 or 5%")
    return text


def _registry(name: str, registry: Field) -> tuple[str, Registry]:
    fields = registry.fields("credentials", "tls-verify", "plain-http", "ca-file", "cert-dir")
    return Field(name, registry.path, registry.problems).parsed(host, name), Registry(
        credentials=_credentials(fields["credentials"]) if "credentials" in fields else Credentials(),
        tls_verify=fields["tls-verify"].boolean(default=True) if "tls-verify" in fields else None,
        plain_http=fields["plain-http"].boolean(default=False) if "plain-http" in fields else None,
        ca_file=fields["ca-file"].text() if "ca-file" in fields else "",
        cert_dir=fields["cert-dir"].text() if "cert-dir" in fields else "",
    )


def _credentials(credentials: Field) -> Credentials:
    if isinstance(credentials.value, dict) and {"username", "password", "token"} & set(credentials.value):
        credentials.problem(
            "credentials are named, never written here: `username-env` and `password-env`, or `helper`"
        )
        return Credentials()
    fields = credentials.fields("username-env", "password-env", "helper")
    if ("username-env" in fields) != ("password-env" in fields) or ("helper" in fields) == (
        "username-env" in fields
    ):
        credentials.problem("needs `username-env` and `password-env`, or `helper`")
    return Credentials(
        fields["username-env"].parsed(_variable, "") if "username-env" in fields else "",
        fields["password-env"].parsed(_variable, "") if "password-env" in fields else "",
        fields["helper"].parsed(_helper, "") if "helper" in fields else "",
    )


def _variable(text: str) -> str:
    if not _VARIABLE_NAME.fullmatch(text):
        # What stands here may be the secret itself, so it is not repeated.
        raise InvalidReference("this is not the name of an environment variable")
    return text


def _helper(text: str) -> str:
    if not _HELPER_NAME.fullmatch(text):
        raise InvalidReference(f"{text!r:.40} is not the name of a credential helper")
    return text
