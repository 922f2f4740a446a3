"""Whatever a server sends, the parsers say something or nothing, and never fail."""

from __future__ import annotations

import string
import unicodedata

import httpx
from hypothesis import given
from hypothesis import strategies as st

from ocitool.errors import RegistryError
from ocitool.registry import headers
from ocitool.registry.headers import Challenge, ContentRange
from ocitool.registry.origins import Origin, follow
from ocitool.registry.text import printable, redacted

# What headers are made of, more of it than letters at random would give.
FIELD = st.text(
    st.sampled_from('abcBasic realm"=\\,;<>/:?&-0123456789. \t\x1b') | st.characters(), max_size=200
)
TOKEN = st.text(string.ascii_lowercase + string.digits + "-._", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
CHALLENGE = st.builds(Challenge, TOKEN, st.dictionaries(TOKEN, VALUE, min_size=1, max_size=4))


def written(challenge: Challenge) -> str:
    quoted = (
        f'{key}="{value}"'
        for key, raw in challenge.parameters.items()
        for value in [raw.replace("\\", "\\\\").replace('"', '\\"')]
    )
    return f"{challenge.scheme} {', '.join(quoted)}"


@given(st.lists(FIELD, max_size=3))
def test_no_header_breaks_a_parser(values: list[str]) -> None:
    for challenge in headers.challenges(values):
        assert challenge.scheme == challenge.scheme.lower() != ""
    assert isinstance(headers.next_link(values), str)
    headers.content_range(values)
    headers.warnings(values)
    for value in values:
        headers.upload_offset(value)
        headers.media_type(value)
        wait = headers.retry_after({"retry-after": value}, 1.8e9)
        assert wait is None or wait >= 0
        headers.rate_limit({"ratelimit-limit": value, "ratelimit-remaining": value})


@given(found=st.lists(CHALLENGE, min_size=1, max_size=3), joined=st.booleans())
def test_challenges_are_read_as_they_were_written(found: list[Challenge], *, joined: bool) -> None:
    texts = [written(challenge) for challenge in found]
    assert headers.challenges([", ".join(texts)] if joined else texts) == found


@given(st.integers(0, 10**18), st.integers(0, 10**9), st.integers(0, 10**9) | st.none())
def test_a_content_range_is_read_as_it_was_written(first: int, length: int, more: int | None) -> None:
    last = first + length
    total = None if more is None else last + 1 + more
    text = f"bytes {first}-{last}/{'*' if total is None else total}"
    assert headers.content_range([text]) == ContentRange(first, last, total)


@given(st.text(st.characters(exclude_characters="<>"), max_size=50).map(str.strip))
def test_a_link_is_read_as_it_was_written(target: str) -> None:
    assert headers.next_link([f'<{target}>; rel="next"']) == target.strip()


@given(FIELD | st.builds("{}://{}{}".format, TOKEN, FIELD, FIELD))
def test_a_location_leads_to_a_plain_url_or_nowhere(target: str) -> None:
    home = Origin("https", "reg.example", 443)
    try:
        url = follow(httpx.URL("https://reg.example/v2/x"), target, home, "it")
    except RegistryError as error:
        said = error.message
    else:
        assert (url.scheme, url.userinfo, url.fragment) == ("https", b"", "")
        assert url.host
        said = redacted(str(url))
    assert printable(said, 10_000) == said


@given(st.text(string.ascii_letters, min_size=1), st.text(string.ascii_letters + "/%&=+;", max_size=50))
def test_no_shown_url_holds_a_password(password: str, path: str) -> None:
    secret = f"{password}0123456789"
    assert secret not in redacted(f"https://user:{secret}@host/{path}?sig={secret}&{path}#{secret}")


@given(st.text(max_size=300))
def test_printable_text_holds_no_control_and_stays_as_it_is(text: str) -> None:
    shown = printable(text, 10_000)
    assert not {"Cc", "Cf", "Cs", "Zl", "Zp"} & {unicodedata.category(char) for char in shown}
    assert printable(shown, 100_000) == shown
