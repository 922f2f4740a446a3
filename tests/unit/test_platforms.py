"""Platforms: how they are written, which are the same, and which runs where."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from ocitool.errors import InvalidReference
from ocitool.platforms import Platform, candidates, host, runs_on


def names(platforms: list[Platform]) -> list[str]:
    return [str(platform).removeprefix("linux/") for platform in platforms]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        (" linux/amd64 ", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("x86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/amd64/3", "linux/amd64/v3"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/arm64/9.0", "linux/arm64/v9"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/5", "linux/arm/v5"),
        ("linux/arm/v8", "linux/arm/v8"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("linux/armhf/v6", "linux/arm/v6"),
        ("i386", "linux/386"),
        ("i686", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/riscv64/rva20u64", "linux/riscv64/rva20u64"),
        ("linux/loongarch64", "linux/loong64"),
        ("linux/ppc64le/power9", "linux/ppc64le/power9"),
        ("windows/amd64:10.0.17763.1", "windows/amd64:10.0.17763.1"),
        ("windows(10.0.17763.1)/amd64", "windows/amd64:10.0.17763.1"),
        ("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64"),
        ("windows(+win32k+Other)/amd64", "windows(+win32k+Other)/amd64"),
        ("windows()/amd64", "windows/amd64"),
    ],
)
def test_parses_and_prints_the_normal_form(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal
    assert Platform.parse(normal) == Platform.parse(text)


def test_an_operating_system_alone_means_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    assert str(Platform.parse("linux")) == "linux/arm64"
    assert str(Platform.parse("Windows")) == "windows/arm64"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "linux/",
        "/amd64",
        "linux//v7",
        "linux/arm/v7/more",
        "linux/amd64:",
        "linux/amd64:10:0",
        "windows(10.0)/amd64:10.0",
        "windows(10.0/amd64",
        "windows(10.0+)/amd64",
        "linux/am d64",
        "linux/amd64\x00",
        "linux/amd64\n/v2",
        "linux/amd64\x1b[2J",
        "linux/arm/v\N{ARABIC-INDIC DIGIT ONE}",
        "linux,amd64",
    ],
)
def test_refuses_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidReference, match="is not a platform") as caught:
        Platform.parse(text)
    assert "linux/arm/v7" in caught.value.hint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("linux", "arm64", "v8"), ("linux", "arm64", "")),
        (("linux", "arm64", "8.0"), ("linux", "aarch64", "")),
        (("linux", "arm", ""), ("linux", "arm", "v7")),
        (("linux", "amd64", "v1"), ("linux", "x86_64", "")),
        (("macOS", "arm64", ""), ("darwin", "ARM64", "V8")),
    ],
)
def test_different_spellings_are_equal(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert Platform(*one) == Platform(*other)


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ("linux/amd64", ["amd64"]),
        ("linux/amd64/v2", ["amd64/v2", "amd64"]),
        ("linux/amd64/v3", ["amd64/v3", "amd64/v2", "amd64"]),
        ("linux/amd64/v4", ["amd64/v4", "amd64/v3", "amd64/v2", "amd64"]),
        ("linux/arm", ["arm/v7", "arm/v6", "arm/v5"]),
        ("linux/arm/v8", ["arm/v8", "arm/v7", "arm/v6", "arm/v5"]),
        ("linux/arm/v6", ["arm/v6", "arm/v5"]),
        ("linux/arm/v5", ["arm/v5"]),
        ("linux/arm/odd", ["arm/odd"]),
        ("linux/arm64", ["arm64"]),
        ("linux/arm64/v8.2", ["arm64/v8.2", "arm64/v8.1", "arm64"]),
        (
            "linux/arm64/v9",
            ["arm64/v9", "arm64/v8.5", "arm64/v8.4", "arm64/v8.3", "arm64/v8.2", "arm64/v8.1", "arm64"],
        ),
        (
            "linux/arm64/v9.1",
            [
                *("arm64/v9.1", "arm64/v9", "arm64/v8.6", "arm64/v8.5", "arm64/v8.4", "arm64/v8.3"),
                *("arm64/v8.2", "arm64/v8.1", "arm64"),
            ],
        ),
        ("linux/arm64/odd", ["arm64/odd"]),
        ("linux/386", ["386"]),
        ("linux/ppc64le/power9", ["ppc64le/power9"]),
    ],
)
def test_falls_back_to_earlier_variants_best_first(wanted: str, order: list[str]) -> None:
    assert names(candidates(Platform.parse(wanted))) == order


def test_a_variant_of_absurd_length_is_a_name_and_costs_nothing() -> None:
    for architecture in ("arm", "arm64", "amd64"):
        assert len(candidates(Platform("linux", architecture, "v" + "9" * 5000))) == 1


def test_other_processors_do_not_stand_in() -> None:
    for architecture, variant in [("amd64", "v4"), ("arm64", "v9"), ("arm", "v8")]:
        found = candidates(Platform("linux", architecture, variant))
        assert {platform.architecture for platform in found} == {architecture}


def test_an_os_version_counts_where_it_is_asked_for() -> None:
    entry = Platform("windows", "amd64", os_version="10.0.14393.1066")
    assert runs_on(entry, Platform("windows", "amd64"))
    assert runs_on(entry, Platform("windows", "amd64", os_version="10.0.14393"))
    assert runs_on(entry, Platform("windows", "amd64", os_version="10.0.14393.1066"))
    assert not runs_on(entry, Platform("windows", "amd64", os_version="10.0.1439"))
    assert not runs_on(entry, Platform("windows", "amd64", os_version="10.0.17763"))
    assert not runs_on(Platform("windows", "amd64"), Platform("windows", "amd64", os_version="10.0"))


def test_a_mandatory_feature_must_be_there() -> None:
    needs = Platform("windows", "amd64", os_features=("win32k",))
    plain = Platform("windows", "amd64")
    assert not runs_on(needs, plain)
    assert runs_on(needs, needs)
    assert runs_on(plain, needs)


def test_knows_the_mark_of_what_is_no_image() -> None:
    assert Platform("unknown", "unknown").is_unknown
    assert Platform("unknown", "amd64").is_unknown
    assert Platform("linux", "Unknown").is_unknown
    assert not Platform("linux", "amd64").is_unknown


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv8l", "linux/arm/v8"),
        ("i686", "linux/386"),
        ("s390x", "linux/s390x"),
    ],
)
def test_the_host_is_a_linux_of_the_kernels_processor(
    machine: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert str(host()) == expected
