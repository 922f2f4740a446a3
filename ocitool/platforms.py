"""Platforms: what a manifest in an index runs on, and which one a host takes.

The names are Go's (image-spec, image-index.md: "Image indexes SHOULD use, and implementations SHOULD
understand, values listed in the Go Language document for `GOARCH`"); the aliases and the order of
fallbacks are those that container engines share.
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
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
}
_DEFAULT_VARIANT: Final = {"arm": "v7"}
_IMPLIED_VARIANT: Final = {("arm64", "v8"), ("amd64", "v1")}
_PART: Final = re.compile(r"[a-z0-9_.-]+")
_VARIANT_NUMBER: Final = re.compile(r"v?([0-9]+)(?:\.([0-9]+))?")


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
        """Read `os/arch[/variant][:os.version]`, or `arch` alone for a Linux platform.

        Raises:
            InvalidReference: the text does not follow the grammar.
        """
        name, _, os_version = text.strip().lower().partition(":")
        parts = name.split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        if not 2 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidReference(
                f"{text!r} is not a platform",
                hint="a platform reads os/arch or os/arch/variant, as linux/arm/v7",
            )
        return cls(parts[0], parts[1], "".join(parts[2:]), os_version)

    def __str__(self) -> str:
        name = "/".join(part for part in (self.os, self.architecture, self.variant) if part)
        return f"{name}:{self.os_version}" if self.os_version else name

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

    An OS version counts only where one is asked for and names itself; every feature asked for must be there.
    """
    return (
        (entry.os, entry.architecture, entry.variant) == (wanted.os, wanted.architecture, wanted.variant)
        and (not wanted.os_version or entry.os_version.startswith(wanted.os_version))
        and set(wanted.os_features) <= set(entry.os_features)
    )
