"""Where an image goes: a template, and the place and name that it gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ocitool.digesttags import beside
from ocitool.errors import InvalidReference, OciError
from ocitool.reference import Reference, is_digest

_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")
_KNOWN: Final = ("registry", "repository", "namespace", "name", "tag")
_LAYOUT: Final = "oci:"
# Stands for what is not known before the source has been asked.
_EXAMPLE: Final = {
    "registry": "registry.example",
    "repository": "team/app",
    "namespace": "team",
    "name": "app",
    "tag": "1.0",
}


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A place, which is a registry's repository or `oci:DIR`, and a name in it.

    `name` is a digest where the image has no tag.
    """

    place: str
    name: str

    @property
    def host(self) -> str:
        """The registry, or the whole place where it is a directory."""
        return self.place if self.place.startswith(_LAYOUT) else self.place.partition("/")[0]

    def beside(self, tag: str) -> str:
        """What another tag of the repository is called here: a layout's names say the repository, too."""
        return beside(self.name, tag)

    def __str__(self) -> str:
        return f"{self.place}{'@' if is_digest(self.name) else ':'}{self.name}"


@dataclass(frozen=True, slots=True)
class Template:
    """`registry.example/mirror/{repository}:{tag}` or `oci:DIR:{repository}:{tag}`.

    The variables are registry, repository, namespace (the repository without its last part), name (its last
    part) and tag. Without a tag, `{tag}` is meant; in a layout, the whole reference.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template.

        Raises:
            InvalidReference: it has unknown variables, or gives no valid place.
        """
        for variable in _VARIABLE.findall(text):
            if variable not in _KNOWN:
                raise InvalidReference(f"{{{variable}}} is none of {', '.join(f'{{{k}}}' for k in _KNOWN)}")
        if "{" in _VARIABLE.sub("", text) or "}" in _VARIABLE.sub("", text):
            raise InvalidReference(f"{text!r:.80} has a lone brace")
        template = cls(text)
        template._fill(_EXAMPLE, _EXAMPLE["tag"])
        return template

    def target(self, source: Reference) -> Target:
        """Where a source goes.

        Raises:
            InvalidReference: what the template gives for it is no place.
        """
        namespace, _, name = source.repository.rpartition("/")
        values = {
            "registry": source.registry,
            "repository": source.repository,
            "namespace": namespace,
            "name": name,
            "tag": source.tag,
        }
        try:
            return self._fill(values, source.tag or ("" if source.digest else source.ref), str(source.digest))
        except OciError as error:
            error.add_note(f"from {source} by the template {self.text}")
            raise

    def _fill(self, values: dict[str, str], tag: str, digest: str = "") -> Target:
        text = self.text
        if not tag:
            # A digest has no tag to go under; a tag that the template writes out is kept.
            text = text.removesuffix(":{tag}")
        filled = _VARIABLE.sub(lambda match: values[match[1]], text)
        if filled.startswith(_LAYOUT):
            path, _, name = filled.removeprefix(_LAYOUT).partition(":")
            if not path:
                raise InvalidReference(f"{self.text!r:.80} names no directory")
            default = digest if not tag else f"{values['registry']}/{values['repository']}:{tag}"
            return Target(_LAYOUT + path, name or default)
        # A name without its namespace leaves an empty part behind.
        reference = Reference.parse(filled.replace("//", "/"))
        if reference.digest:
            raise InvalidReference(f"{self.text!r:.80} names a digest, which is the source's to say")
        return Target(reference.name, reference.tag or tag or digest)
