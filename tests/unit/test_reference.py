"""References: docker's defaults, the distribution-spec's grammar, and security.md RC-16."""

from __future__ import annotations

import time

import pytest

from ocitool.digest import Digest
from ocitool.errors import InvalidReference
from ocitool.reference import Reference, check_tag, is_digest, registry_of

DIGEST = Digest.of(b"content")
HEX = DIGEST.hex


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("alpine", "docker.io", "library/alpine", ""),
        ("alpine:3.20", "docker.io", "library/alpine", "3.20"),
        ("library/alpine", "docker.io", "library/alpine", ""),
        ("grafana/loki:main", "docker.io", "grafana/loki", "main"),
        ("docker.io/alpine", "docker.io", "library/alpine", ""),
        ("docker.io/grafana/loki", "docker.io", "grafana/loki", ""),
        ("index.docker.io/alpine", "docker.io", "library/alpine", ""),
        ("registry-1.docker.io/library/alpine", "docker.io", "library/alpine", ""),
        ("ghcr.io/org/app:v1", "ghcr.io", "org/app", "v1"),
        ("ghcr.io/app", "ghcr.io", "app", ""),
        ("localhost/app", "localhost", "app", ""),
        ("localhost:5000/app:1", "localhost:5000", "app", "1"),
        ("localhost:5000", "docker.io", "library/localhost", "5000"),
        ("host:5000/app", "host:5000", "app", ""),
        ("host/app", "docker.io", "host/app", ""),
        ("Host/app", "Host", "app", ""),
        ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000", "a/b/c", "x"),
        ("[::1]:5000/app:x", "[::1]:5000", "app", "x"),
        ("[2001:db8::1]/app", "[2001:db8::1]", "app", ""),
        ("a.b/c__d/e---f.g_h", "a.b", "c__d/e---f.g_h", ""),
        ("xn--n3h.example/app", "xn--n3h.example", "app", ""),
        (f"app:{'t' * 128}", "docker.io", "library/app", "t" * 128),
        (f"{HEX}:tag", "docker.io", f"library/{HEX}", "tag"),
    ],
)
def test_reads_names_as_docker_does(text: str, registry: str, repository: str, tag: str) -> None:
    reference = Reference.parse(text)
    assert (reference.registry, reference.repository, reference.tag) == (registry, repository, tag)
    assert reference.name == f"{registry}/{repository}"
    assert reference.digest is None


def test_latest_is_asked_for_only_where_there_is_neither_tag_nor_digest() -> None:
    assert Reference.parse("alpine").ref == "latest"
    assert Reference.parse("alpine:3").ref == "3"
    assert Reference.parse(f"alpine@{DIGEST}").ref == str(DIGEST)


def test_a_digest_decides_and_the_tag_beside_it_is_kept() -> None:
    reference = Reference.parse(f"ghcr.io/org/app:v1@{DIGEST}")
    assert (reference.ref, reference.tag) == (str(DIGEST), "v1")
    assert reference.tagged == "ghcr.io/org/app:v1"
    assert str(reference) == f"ghcr.io/org/app:v1@{DIGEST}"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        (f"ghcr.io/a@{DIGEST}", f"ghcr.io/a@{DIGEST}"),
    ],
)
def test_prints_the_full_name(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(" ", id="space"),
        pytest.param("/", id="slash"),
        pytest.param("ghcr.io/", id="host_without_a_name"),
        pytest.param("/a", id="no_host_before_the_slash"),
        pytest.param("a/../../b", id="rc_16_parent_directories"),
        pytest.param("ghcr.io/../b", id="rc_16_parent_directory"),
        pytest.param("ghcr.io/a/./b", id="rc_16_dot"),
        pytest.param("A", id="rc_16_upper_case_name"),
        pytest.param("ghcr.io/Org/app", id="rc_16_upper_case_part"),
        pytest.param("a//b", id="rc_16_empty_part"),
        pytest.param("ghcr.io//b", id="rc_16_empty_part_after_the_host"),
        pytest.param("a/b/", id="rc_16_slash_at_the_end"),
        pytest.param(f"a:{'t' * 129}", id="rc_16_tag_of_129_characters"),
        pytest.param("a:b\r\n", id="rc_16_tag_with_crlf"),
        pytest.param("a:b\n", id="rc_16_tag_with_trailing_newline"),
        pytest.param("a:b\x00", id="rc_16_tag_with_nul"),
        pytest.param("a:b\N{ARABIC-INDIC DIGIT ONE}", id="rc_16_tag_with_unicode_digit"),
        pytest.param("a:-b", id="rc_16_tag_starts_with_dash"),
        pytest.param("a:.b", id="rc_16_tag_starts_with_dot"),
        pytest.param("a:", id="rc_16_empty_tag"),
        pytest.param("a:b?c=d", id="rc_16_tag_with_query"),
        pytest.param("a:b%2e", id="rc_16_tag_with_percent"),
        pytest.param("a\n", id="rc_16_name_with_trailing_newline"),
        pytest.param("a\x00", id="rc_16_name_with_nul"),
        pytest.param("a\N{ARABIC-INDIC DIGIT ONE}", id="rc_16_name_with_unicode_digit"),
        pytest.param("\N{KELVIN SIGN}", id="rc_16_name_with_kelvin_sign"),
        pytest.param("ghcr.io/a\x1b[2J", id="rc_16_name_with_escape_sequence"),
        pytest.param("a_-b", id="rc_16_mixed_separators"),
        pytest.param("a___b", id="rc_16_three_underscores"),
        pytest.param("-a", id="rc_16_name_starts_with_dash"),
        pytest.param("a..b/c:x..", id="rc_16_two_dots_in_a_host"),
        pytest.param("a@", id="rc_16_empty_digest"),
        pytest.param("a@sha256:../../x", id="rc_16_digest_is_a_path"),
        pytest.param(f"a@sha256:{HEX}/../y", id="rc_16_path_after_the_digest"),
        pytest.param(f"a@sha256:{HEX}?a=", id="rc_16_query_after_the_digest"),
        pytest.param("a@sha256:%2e%2e", id="rc_16_digest_with_percent"),
        pytest.param(f"a@sha256:{HEX.upper()}", id="rc_16_digest_in_upper_case"),
        pytest.param(f"a@sha256:{HEX[1:]}", id="rc_16_digest_of_63_digits"),
        pytest.param(f"a@sha256:{HEX}0", id="rc_16_digest_of_65_digits"),
        pytest.param(f"a@sha256:{HEX}\n", id="rc_16_digest_with_trailing_newline"),
        pytest.param(f"a@sha512:{HEX}", id="rc_16_sha512_of_64_digits"),
        pytest.param(f"a@md5:{HEX}", id="rc_16_unknown_algorithm"),
        pytest.param(f"a@{DIGEST}@{DIGEST}", id="two_digests"),
        pytest.param(f"@{DIGEST}", id="digest_without_a_name"),
        pytest.param(HEX, id="image_id"),
        pytest.param("user@evil.example/a", id="userinfo"),
        pytest.param("https://ghcr.io/a", id="scheme"),
        pytest.param("ghcr.io:65536/a", id="port_too_large"),
        pytest.param("ghcr.io:123456/a", id="port_of_six_digits"),
        pytest.param("ghcr.io:\N{ARABIC-INDIC DIGIT ONE}/a", id="port_in_unicode_digits"),
        pytest.param("ghcr.io:/a", id="port_missing"),
        pytest.param("ghcr.io:5000:1/a", id="two_ports"),
        pytest.param("-ghcr.io/a", id="host_starts_with_dash"),
        pytest.param("ghcr-.io/a", id="host_label_ends_with_dash"),
        pytest.param(".ghcr.io/a", id="host_starts_with_dot"),
        pytest.param("gh_cr.io/a", id="host_with_underscore"),
        pytest.param("gh\N{LATIN SMALL LETTER SHARP S}.io/a", id="host_not_ascii"),
        pytest.param("169.254.169.254%2f/a", id="host_with_percent"),
        pytest.param("[::1/a", id="bracket_not_closed"),
        pytest.param("[::1%25eth0]/a", id="zone"),
        pytest.param("[evil.example]/a", id="brackets_around_a_name"),
        pytest.param(f"ghcr.io/{'a' * 248}", id="256_characters"),
    ],
)
def test_refuses_before_any_request(text: str) -> None:
    with pytest.raises(InvalidReference, match="is not an image reference") as caught:
        Reference.parse(text)
    assert caught.value.exit_code == 2


def test_the_longest_name_has_255_characters() -> None:
    assert len(Reference.parse(f"ghcr.io/{'a' * 247}").name) == 255


def test_says_that_repositories_are_lower_case() -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse("Alpine")
    assert "lower-case" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["a" * 300_000 + "!", "a-" * 150_000, "a/" * 150_000 + "!", "x.io/" + "a_" * 150_000, "A" * 300_000],
)
def test_refuses_long_nonsense_at_once(text: str) -> None:
    start = time.thread_time()
    with pytest.raises(InvalidReference):
        Reference.parse(text)
    assert time.thread_time() - start < 2


def test_an_error_does_not_repeat_all_of_long_nonsense() -> None:
    for text in ("A" * 300_000, "a:" + "!" * 300_000, "a@sha256:" + "!" * 300_000, "a" * 300_000):
        with pytest.raises(InvalidReference) as caught:
            Reference.parse(text)
        assert len(str(caught.value)) < 500


def test_cannot_be_built_invalid() -> None:
    for registry, repository, tag in [
        ("", "a", ""),
        ("host", "a", ""),  # would be read again as docker.io/host/a
        ("evil.example/x", "a", ""),
        ("ghcr.io", "", ""),
        ("ghcr.io", "../a", ""),
        ("ghcr.io", "a", "../x"),
        ("docker.io", "", ""),
    ]:
        with pytest.raises(InvalidReference):
            Reference(registry, repository, tag)


def test_names_of_the_same_image_are_equal() -> None:
    assert Reference("docker.io", "alpine") == Reference("index.docker.io", "library/alpine")
    assert Reference("docker.io", "alpine") == Reference.parse("alpine")


def test_tags_are_checked_alone_too() -> None:
    check_tag("v1.0_x-Y")
    with pytest.raises(InvalidReference, match="is not a tag"):
        check_tag("v1+build")


def test_tells_digests_from_tags() -> None:
    assert is_digest(str(DIGEST))
    assert not is_digest("sha256-" + HEX)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("https://ghcr.io/org/app:v1", "it is a URL"),
        ("http://localhost:5000/app", "it is a URL"),
    ],
)
def test_what_is_no_reference_at_all_is_called_what_it_is(text: str, said: str) -> None:
    with pytest.raises(InvalidReference, match=said):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        ("registry.example", "registry.example"),
        ("registry.example:5000/", "registry.example:5000"),
        ("https://registry.example", "registry.example"),
        ("http://[::1]:5000/v2/", "[::1]:5000"),
        ("docker://localhost", "localhost"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_a_registry_is_named_by_its_host_or_its_url(text: str, registry: str) -> None:
    assert registry_of(text) == registry


@pytest.mark.parametrize(
    "text", ["", "a b", "registry", "registry.example/app", "https://", "ftp://registry.example"]
)
def test_what_is_more_or_less_than_a_registry_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        registry_of(text)
