"""Digests: what is one, and everything of security.md RC-16 that is not."""

from __future__ import annotations

import hashlib

import pytest

from ocitool.digest import Digest, new_hasher
from ocitool.errors import InvalidDigest, Unsupported

HEX = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b"


def test_parses_what_it_prints() -> None:
    digest = Digest.parse(f"sha256:{HEX}")
    assert (digest.algorithm, digest.hex, digest.short) == ("sha256", HEX, HEX[:12])
    assert str(digest) == f"sha256:{HEX}"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_calculates_registered_algorithms(algorithm: str) -> None:
    assert Digest.of(b"hello", algorithm).hex == hashlib.new(algorithm, b"hello").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("sha256", id="no_colon"),
        pytest.param("sha256:", id="no_digits"),
        pytest.param(f":{HEX}", id="no_algorithm"),
        pytest.param(HEX, id="digits_alone"),
        pytest.param("sha256:../../x", id="rc_16_parent_directory"),
        pytest.param("sha256:../../../../etc/passwd", id="im_01_path"),
        pytest.param(f"sha256:{HEX}/../y", id="rc_16_path_after_the_digits"),
        pytest.param(f"sha256:{HEX}?a=b", id="rc_16_query"),
        pytest.param(f"sha256:{HEX}#a", id="rc_16_fragment"),
        pytest.param(f"sha256:%2e%2e{HEX[6:]}", id="rc_16_percent_encoding"),
        pytest.param(f"sha256:{HEX.upper()}", id="rc_16_upper_case_digits"),
        pytest.param(f"sha256:{HEX[1:]}", id="rc_16_63_digits"),
        pytest.param(f"sha256:{HEX}0", id="rc_16_65_digits"),
        pytest.param(f"sha256:{HEX}\n", id="rc_16_trailing_newline"),
        pytest.param(f"sha256:{HEX[1:]}\n", id="rc_16_newline_for_a_digit"),
        pytest.param(f"\nsha256:{HEX}", id="leading_newline"),
        pytest.param(f"sha256:{HEX}\x00", id="trailing_nul"),
        pytest.param(f"sha256:{HEX[1:]}\x00", id="nul_for_a_digit"),
        pytest.param(f"sha256:{HEX[1:]}\N{ARABIC-INDIC DIGIT ONE}", id="unicode_digit"),
        pytest.param(f"sha256:{HEX[1:]}\N{FULLWIDTH DIGIT ONE}", id="full_width_digit"),
        pytest.param(f" sha256:{HEX}", id="leading_space"),
        pytest.param(f"sha256::{HEX}", id="two_colons"),
        pytest.param(f"SHA256:{HEX}", id="upper_case_algorithm"),
        pytest.param(f"sha256+:{HEX}", id="separator_at_the_end"),
        pytest.param(f"../sha256:{HEX}", id="path_before_the_algorithm"),
        pytest.param(f"sha512:{HEX}", id="rc_16_sha512_with_64_digits"),
        pytest.param(f"sha256:{HEX}{HEX}", id="sha256_with_128_digits"),
        pytest.param(f"sha256:{HEX[1:]}g", id="not_hexadecimal"),
        pytest.param(f"sha256:{HEX[1:]}=", id="grammatical_but_not_hexadecimal"),
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"md5:{HEX[:32]}", id="rc_16_unknown_algorithm"),
        pytest.param(f"sha384:{HEX}{HEX[:32]}", id="known_to_hashlib_but_not_registered"),
        pytest.param("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", id="multihash"),
        pytest.param("sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564", id="other_encoding"),
    ],
)
def test_an_algorithm_that_is_not_registered_is_unsupported_not_malformed(text: str) -> None:
    with pytest.raises(Unsupported, match="not supported"):
        Digest.parse(text)


def test_cannot_be_built_invalid() -> None:
    with pytest.raises(InvalidDigest):
        Digest("sha256", "../x")
    with pytest.raises(Unsupported):
        Digest("..", HEX)
    with pytest.raises(Unsupported):
        Digest.of(b"", "md5")
    with pytest.raises(Unsupported):
        new_hasher("shake_128")


def test_is_a_value() -> None:
    assert {Digest.of(b"a"), Digest.of(b"a"), Digest.of(b"b")} == {Digest.of(b"b"), Digest.of(b"a")}
    assert Digest("sha256", "0" * 64) < Digest("sha256", "f" * 64) < Digest("sha512", "0" * 128)
