"""Platforms: what a manifest in an index runs on, and which one a host takes.

The names are Go's (image-spec, image-index.md: "Image indexes SHOULD use, and implementations SHOULD
understand, values listed in the Go Language document for [`GOARCH`][go-environment2]."); the aliases and
the order of fallbacks are those that container engines share.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Final

from ocitool.errors import InvalidReference

_OS_ALIASES: Final = {"macos": "darwin"}
_ARCH_ALIASES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}
# What a platform of one word may be, where it is no architecture.
_OS_NAMES: Final = frozenset({"linux", "windows", "darwin", "macos", "freebsd"})
_DEFAULT_VARIANT: Final = {"arm": "v7"}
_IMPLIED_VARIANT: Final = {("arm64", "v8"), ("amd64", "v1")}
_WORD = r"[A-Za-z0-9_.-]+"
# os/arch/variant, with the version of a Windows behind a colon or, features too, in brackets behind the os.
_GRAMMAR: Final = re.compile(
    rf"({_WORD})(?:\(({_WORD})?((?:\+{_WORD})*)\))?(?:/({_WORD})(?:/({_WORD}))?)?(?::({_WORD}))?"
)
_VARIANT_NUMBER: Final = re.compile(r"v?([0-9]{1,2})(?:\.([0-9]{1,2}))?")


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system and a processor, in normal form: `aarch64` and `arm64/v8` are `arm64`."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        os_name = self.os.lower()
        architecture, alias_variant = _ARCH_ALIASES.get(
            self.architecture.lower(), (self.architecture.lower(), "")
        )
        object.__setattr__(self, "os", _OS_ALIASES.get(os_name, os_name))
        object.__setattr__(self, "architecture", architecture)
        object.__setattr__(
            self, "variant", _normal_variant(architecture, self.variant.lower() or alias_variant)
        )

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/arch[/variant][:os.version]`, `os(os.version+feature)/arch[/variant]`, `arch` or `os`.

        An architecture alone is a Linux one; an operating system alone is that of this machine's processor.

        Raises:
            InvalidReference: the text does not follow the grammar.
        """
        match = _GRAMMAR.fullmatch(text.strip())
        if match is None or (match[2] and match[6]):
            raise InvalidReference(
                f"{text!r:.160} is not a platform",
                hint="a platform reads os/arch or os/arch/variant, as linux/arm/v7",
            )
        os_name, architecture = match[1], match[4]
        if architecture is None:
            alone = os_name.lower() in _OS_NAMES
            os_name, architecture = (os_name, os.uname().machine) if alone else ("linux", os_name)
        features = tuple(match[3].split("+")[1:]) if match[3] else ()
        return cls(os_name, architecture, match[5] or "", match[2] or match[6] or "", features)

    def __str__(self) -> str:
        os_name, version = self.os, f":{self.os_version}" if self.os_version else ""
        if self.os_features:
            os_name, version = f"{os_name}({self.os_version}+{'+'.join(self.os_features)})", ""
        return "/".join(part for part in (os_name, self.architecture, self.variant) if part) + version

    @property
    def is_unknown(self) -> bool:
        """Whether this is the mark of an entry that is no image (an attestation, say)."""
        return self.os == "unknown" or self.architecture == "unknown"


def _normal_variant(architecture: str, variant: str) -> str:
    number = _VARIANT_NUMBER.fullmatch(variant)
    if number and architecture in {"arm", "arm64", "amd64"}:
        minor = number[2]
        variant = f"v{number[1]}" + (f".{minor}" if minor and minor != "0" else "")
    if (architecture, variant) in _IMPLIED_VARIANT:
        return ""
    return variant or _DEFAULT_VARIANT.get(architecture, "")


def host() -> Platform:
    """The platform that this process runs on; Linux containers are what ocitool runs everywhere."""
    return Platform("linux", os.uname().machine)


def candidates(wanted: Platform) -> list[Platform]:
    """What runs on `wanted`, best first: itself, then earlier variants of the same architecture."""
    result = [wanted]
    if wanted.architecture == "arm":
        result += [replace(wanted, variant=f"v{n}") for n in range(_major(wanted) - 1, 4, -1)]
    elif wanted.architecture == "amd64" and wanted.variant:
        result += [replace(wanted, variant=f"v{n}") for n in range(_major(wanted) - 1, 0, -1)]
    elif wanted.architecture == "arm64" and wanted.variant:
        result += _arm64_fallbacks(wanted)
    return result


def _major(platform: Platform) -> int:
    number = _VARIANT_NUMBER.fullmatch(platform.variant)
    return int(number[1]) if number else 0


def _arm64_fallbacks(wanted: Platform) -> list[Platform]:
    """Armv9.x runs everything up to Armv8.(x+5); Armv8.x everything below it."""
    number = _VARIANT_NUMBER.fullmatch(wanted.variant)
    if number is None:
        return []
    major, minor = int(number[1]), int(number[2] or 0)
    variants = [f"v{major}.{n}" for n in range(minor - 1, 0, -1)]
    if major == 9:
        variants += ["v9"] * (minor > 0) + [f"v8.{n}" for n in range(minor + 5, 0, -1)]
    return [replace(wanted, variant=variant) for variant in [*variants, "v8"]]


def runs_on(entry: Platform, wanted: Platform) -> bool:
    """Whether an entry of an index is exactly what is wanted.

    An OS version counts only where one is asked for, and then whole parts of it do: 10.0 takes 10.0.14393.

    image-spec, image-index.md, os.features: "This OPTIONAL property specifies an array of strings, each
    specifying a mandatory OS feature." So the entry's must all be among those that are there.
    """
    return (
        (entry.os, entry.architecture, entry.variant) == (wanted.os, wanted.architecture, wanted.variant)
        and (not wanted.os_version or f"{entry.os_version}.".startswith(f"{wanted.os_version}."))
        and set(entry.os_features) <= set(wanted.os_features)
    )
