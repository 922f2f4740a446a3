"""Mirror files of other tools, read as they are: skopeo's sync YAML and regsync.yml.

What a file says that has no meaning here becomes a note, so that nobody believes that it is obeyed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ocitool.mirror import config, yamltext
from ocitool.mirror.config import Credentials, Kind, Limits, MirrorFile, Options, Registry, Rule, host
from ocitool.mirror.fields import Field, Problems
from ocitool.mirror.naming import Template
from ocitool.mirror.patterns import Names, Pattern
from ocitool.mirror.semver import Range
from ocitool.platforms import Platform
from ocitool.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

_SKOPEO: Final = (
    "images",
    "images-by-tag-regex",
    "images-by-semver",
    "credentials",
    "tls-verify",
    "cert-dir",
)
_ENV: Final = re.compile(r'\s*\{\{-?\s*env\s+"([A-Za-z_][A-Za-z0-9_]*)"\s*-?\}\}\s*')


def parse(raw: bytes, what: str = "mirror file", *, to: str = "") -> MirrorFile:
    """Read a mirror file of any kind that is known.

    Args:
        raw: the file.
        what: how to call it in an error.
        to: where images go. A skopeo file does not say that; in the others it is for rules without `to`.

    Raises:
        InvalidContent: it has problems; each is a note of the error, with its path.
    """
    problems = Problems(what)
    document = Field(yamltext.load(raw, what), "", problems)
    if not isinstance(document.value, dict):
        document.problem("must be a mapping with `version` and `sources`")
        problems.raise_any()
    if "sync" in document.value:
        result = _Regsync(document).read()
    elif "version" in document.value or "sources" in document.value:
        if to:
            _default_destination(document.value, to)
        result = config.read(document)
    else:
        result = _Skopeo(document, to).read()
    problems.raise_any()
    return result


def _default_destination(document: dict[str, Any], to: str) -> None:
    defaults = document.get("defaults")
    document["defaults"] = {"to": to, **(defaults if isinstance(defaults, dict) else {})}


class _Skopeo:
    """`skopeo sync --src yaml`: a registry, its repositories, and tags for each of them."""

    def __init__(self, document: Field, to: str) -> None:
        self._document = document
        self._notes: list[str] = []
        self._options = Options()
        if not to:
            document.problem("is a skopeo sync file, which does not say where to: name that with --to")
        else:
            template = to if "{" in to else to.rstrip("/") + "/{repository}"
            self._options = Options(
                to=Field(template, "--to", document.problems).parsed(Template.parse, None)
            )

    def read(self) -> MirrorFile:
        rules: list[Rule] = []
        registries: dict[str, Registry] = {}
        for name, registry in self._document.entries():
            fields = dict(registry.entries())
            for key in fields.keys() - set(_SKOPEO):
                self._notes.append(f"{fields[key].path} is not known, and not obeyed")
            rules += self._rules(name, fields)
            if settings := self._registry(fields):
                registries[name] = settings
        return MirrorFile(tuple(rules), registries=registries, notes=tuple(sorted(self._notes)))

    def _rules(self, registry: str, fields: dict[str, Field]) -> Iterator[Rule]:
        for kind in _SKOPEO[:3]:
            if kind not in fields:
                continue
            for repository, wanted in fields[kind].entries():
                path = f"{kind} of {registry}: {repository}"
                name = f"{registry}/{repository}"
                source = Field(name, wanted.path, wanted.problems).parsed(Reference.parse, None)
                if source:
                    yield Rule(path, "repository", source, self._options, self._names(kind, wanted))

    def _names(self, kind: str, wanted: Field) -> Names:
        if kind == "images":
            return Names(exact=wanted.texts())
        if kind == "images-by-tag-regex":
            # There, an expression may match anywhere in a tag.
            pattern = wanted.parsed(Pattern.search, None)
            return Names(patterns=(pattern,) if pattern else ())
        span = wanted.parsed(Range.parse, None)
        return Names(ranges=(span,) if span else ())

    def _registry(self, fields: dict[str, Field]) -> Registry | None:
        if "credentials" in fields and fields["credentials"].value:
            self._notes.append(
                f"{fields['credentials'].path} holds credentials, which are not read from files: use"
                " `ocitool login`, or `registries` in a file of our own"
            )
        verify = fields["tls-verify"].boolean(default=True) if "tls-verify" in fields else None
        directory = fields["cert-dir"].text() if "cert-dir" in fields else ""
        return Registry(tls_verify=verify, cert_dir=directory) if verify is not None or directory else None


_REGSYNC_KIND: Final[dict[str, Kind]] = {"image": "image", "repository": "repository", "registry": "registry"}
_REGSYNC_TARGET: Final = {
    "image": "{target}",
    "repository": "{target}:{{tag}}",
    "registry": "{target}/{{repository}}:{{tag}}",
}


class _Regsync:
    """regsync.yml, version 1."""

    def __init__(self, document: Field) -> None:
        self._document = document
        self._notes: list[str] = []

    def read(self) -> MirrorFile:
        fields = dict(self._document.entries())
        self._unknown("", fields, "version", "creds", "defaults", "sync")
        defaults, limits = self._defaults(fields)
        rules = [self._rule(entry, defaults) for entry in fields["sync"].items()]
        registries = dict(self._registries(fields["creds"])) if "creds" in fields else {}
        return MirrorFile(
            tuple(rule for rule in rules if rule),
            limits=limits,
            registries=registries,
            notes=tuple(self._notes),
        )

    def _unknown(self, path: str, fields: dict[str, Field], *known: str) -> None:
        prefix = f"{path}." if path else ""
        self._notes += [
            f"{prefix}{name} is not known, and not obeyed" for name in fields if name not in known
        ]

    def _defaults(self, fields: dict[str, Field]) -> tuple[Options, Limits]:
        # There, neither referrers nor digest tags are taken unless the file says so.
        options = Options(referrers=False, digest_tags=False)
        if "defaults" not in fields:
            return options, Limits()
        given = dict(fields["defaults"].entries())
        self._unknown("defaults", given, "parallel", "digestTags", "referrers")
        jobs = given["parallel"].integer(1, least=1, most=64) if "parallel" in given else Limits().jobs
        return self._options(given, options), Limits(jobs=jobs)

    def _options(self, fields: dict[str, Field], options: Options) -> Options:
        if "referrers" in fields:
            options = replace(options, referrers=fields["referrers"].boolean(default=False))
        if "digestTags" in fields:
            options = replace(options, digest_tags=fields["digestTags"].boolean(default=False))
        if "platforms" in fields:
            options = replace(options, platforms=fields["platforms"].all_parsed(Platform.parse))
        if "platform" in fields:
            options = replace(options, platforms=fields["platform"].all_parsed(Platform.parse))
        return options

    def _rule(self, entry: Field, defaults: Options) -> Rule | None:
        fields = dict(entry.entries())
        self._unknown(
            entry.path, fields, "source", "target", "type", "tags", "repos", "platform", "platforms",
            "referrers", "digestTags",
        )  # fmt: skip
        missing = [name for name in ("source", "target", "type") if name not in fields]
        if missing:
            entry.problem(f"needs {', '.join(missing)}")
            return None
        kind = _REGSYNC_KIND[fields["type"].choice(*_REGSYNC_KIND)]
        target = fields["target"].text().replace("{", "").replace("}", "")
        if target.startswith("ocidir://"):
            target = "oci:" + target.removeprefix("ocidir://")
        template = fields["target"].parsed(
            lambda _: Template.parse(_REGSYNC_TARGET[kind].format(target=target)), None
        )
        source = fields["source"].parsed(host if kind == "registry" else Reference.parse, None)
        if not source or not template:
            return None
        return Rule(
            entry.path,
            kind,
            source,
            replace(self._options(fields, defaults), to=template),
            self._names(fields["tags"]) if "tags" in fields else Names(),
            self._names(fields["repos"]) if "repos" in fields else Names(),
        )

    def _names(self, chosen: Field) -> Names:
        fields = dict(chosen.entries())
        self._unknown(chosen.path, fields, "allow", "deny", "semverRange")
        # There as here, an expression has to match the whole name.
        return Names(
            patterns=fields["allow"].all_parsed(Pattern.regex) if "allow" in fields else (),
            ranges=fields["semverRange"].all_parsed(Range.parse) if "semverRange" in fields else (),
            exclude=fields["deny"].all_parsed(Pattern.regex) if "deny" in fields else (),
        )

    def _registries(self, creds: Field) -> Iterator[tuple[str, Registry]]:
        for entry in creds.items():
            fields = dict(entry.entries())
            self._unknown(entry.path, fields, "registry", "user", "pass", "tls", "credHelper")
            name = fields["registry"].parsed(host, "") if "registry" in fields else ""
            if not name:
                continue
            tls = str(fields["tls"].value) if "tls" in fields else "enabled"
            yield (
                name,
                Registry(
                    credentials=self._credentials(entry.path, fields),
                    tls_verify=False if tls == "insecure" else None,
                    plain_http=True if tls == "disabled" else None,
                ),
            )

    def _credentials(self, path: str, fields: dict[str, Field]) -> Credentials:
        if "credHelper" in fields:
            return Credentials(helper=fields["credHelper"].text().removeprefix("docker-credential-"))
        if "pass" not in fields:
            return Credentials()
        user, password = (
            _ENV.fullmatch(str(fields[k].value)) if k in fields else None for k in ("user", "pass")
        )
        if not user or not password:
            self._notes.append(
                f"{path} holds a user or password, which are not read from files: only"
                ' {{env "NAME"}} is; use `ocitool login`'
            )
            return Credentials()
        return Credentials(user[1], password[1])
