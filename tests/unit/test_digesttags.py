"""Which names belong to a manifest, and what they are called in another place."""

from __future__ import annotations

import pytest

from ocitool.digesttags import belonging, beside, is_digest_tag, is_fallback_tag, subject_of

HEX = "ab" * 32
OTHER = "cd" * 32


def test_digest_tags_are_told_from_names() -> None:
    assert subject_of(f"sha256-{HEX}.att") == f"sha256:{HEX}"
    assert subject_of(f"sha256-{HEX}") == f"sha256:{HEX}"
    assert not is_digest_tag("sha256-short")
    assert subject_of("1.0") == ""


@pytest.mark.parametrize("tag", ["1.0", f"sha256-{HEX}.sig.old", f"sha256-{HEX}-old"])
def test_a_tag_that_only_looks_like_that_of_a_signature_is_an_image_s_own(tag: str) -> None:
    assert not is_digest_tag(tag)
    assert not is_fallback_tag(tag)
    assert subject_of(tag) == ""


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("1.0", "sha256-x.sig"),
        ("example.test/app:1.0", "example.test/app:sha256-x.sig"),
        ("example.test:5000/app", "sha256-x.sig"),
        (f"sha256:{HEX}", "sha256-x.sig"),
    ],
)
def test_a_signature_is_beside_its_image(name: str, called: str) -> None:
    assert beside(name, "sha256-x.sig") == called


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.test/app:1", [f"a.test/app:sha256-{HEX}.sig", f"sha256-{HEX}.sbom"]),
        ("1", [f"a.test/app:sha256-{HEX}.sig", f"b.test/app:sha256-{HEX}.sig", f"sha256-{HEX}.sbom"]),
    ],
)
def test_what_belongs_to_an_image_is_of_its_repository_where_that_is_known(
    name: str, found: list[str]
) -> None:
    names = [
        *("a.test/app:1", "b.test/app:1", f"sha256-{HEX}", f"sha256-{OTHER}.sig", f"sha256-{HEX}.sbom"),
        *(f"b.test/app:sha256-{HEX}.sig", f"a.test/app:sha256-{HEX}.sig"),
    ]
    assert belonging(names, {f"sha256:{HEX}"}, name) == found
