"""Where requests go, and where answers may lead."""

from __future__ import annotations

import ipaddress
import socket

import httpx
import pytest

from ocitool.errors import OciError, RegistryError, Unreachable
from ocitool.registry.addresses import Reach, check, check_literal, reach_of, resolve
from ocitool.registry.origins import Origin, follow, is_loopback_name
from ocitool.registry.proxies import checked, proxy_for
from ocitool.registry.text import printable, redacted

HOME = Origin("https", "reg.example", 443)
BASE = httpx.URL("https://reg.example/v2/a/blobs/x?y=z")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/token", "https://reg.example/token"),
        ("../up", "https://reg.example/v2/a/up"),
        ("?q=1", "https://reg.example/v2/a/blobs/x?q=1"),
        ("https://other.example/x", "https://other.example/x"),
        ("//other.example/x", "https://other.example/x"),
        ("https://reg.example:443/x", "https://reg.example/x"),
        ("http://reg.example/x", "https://reg.example/x"),
        ("http://reg.example:443/x", "https://reg.example/x"),
        ("http://REG.example:80/x", "https://reg.example/x"),
        ("https://other.example/x#fragment", "https://other.example/x"),
        ("https://other.example/x?a=%2F&b=%3D", "https://other.example/x?a=%2F&b=%3D"),
    ],
)
def test_a_target_is_resolved(target: str, expected: str) -> None:
    assert str(follow(BASE, target, HOME, "it")) == expected


@pytest.mark.parametrize(
    "target",
    [
        "http://other.example/x",
        "http://reg.example:8080/x",
        "http://reg.example.evil/x",
        "https://user@other.example/x",
        "https://reg.example@evil.example/x",
        "ftp://other.example/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://other.example/a b",
        "https://other.example\\@evil/",
        "https://reg.example\\evil/x",
        "/\\evil.example/x",
        "https://other.example/\u202ex",
        "https://other.example/\xa0x",
        "https://:443/x",
        "https://other.example/\r\nX: y",
        "https://host:1:2/x",
        "https://[::1/x",
        "https://host:99999/x",
        "https://" + "a" * 20_000,
    ],
)
def test_a_target_that_may_not_be_followed_is_refused(target: str) -> None:
    with pytest.raises(RegistryError) as caught:
        follow(BASE, target, HOME, "the redirect")
    assert "\r" not in str(caught.value)


def test_origins_are_equal_whatever_their_spelling() -> None:
    assert Origin.of(httpx.URL("https://Reg.Example:443/x")) == HOME
    assert Origin.of(httpx.URL("https://reg.example:5000/x")) == Origin("https", "reg.example", 5000) != HOME
    assert Origin.parse("https", "reg.example") == HOME
    assert Origin.parse("http", "reg.example") != HOME
    assert Origin.parse("https", "reg.example:5000") != HOME
    assert str(Origin.parse("https", "[::1]:5000")) == "https://[::1]:5000"
    assert str(Origin.parse("http", "[::1]").url("/v2/")) == "http://[::1]/v2/"


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.255.0.3", "::1"])
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback_name(host)


@pytest.mark.parametrize(
    "host", ["localhost.evil", "127.0.0.1.evil", "10.0.0.1", "xlocalhost", "::2", "1270.0.0.1"]
)
def test_names_that_only_look_like_it(host: str) -> None:
    assert not is_loopback_name(host)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("172.32.0.1", Reach.PUBLIC),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("2002:a00:1::", Reach.PRIVATE),
        ("169.254.169.254", Reach.ANY),
        ("::ffff:a9fe:a9fe", Reach.ANY),
        ("64:ff9b::a9fe:a9fe", Reach.ANY),
        ("2002:a9fe:a9fe::", Reach.ANY),
        ("fe80::1", Reach.ANY),
        ("fd00:ec2::254", Reach.PRIVATE),
        ("0.0.0.0", Reach.ANY),
        ("::", Reach.ANY),
        ("224.0.0.1", Reach.ANY),
        ("ff02::1", Reach.ANY),
        ("240.0.0.1", Reach.ANY),
        ("255.255.255.255", Reach.ANY),
        ("4000::1", Reach.ANY),
    ],
)
def test_rc_04_addresses_are_known_for_what_they_are(address: str, reach: Reach) -> None:
    assert reach_of(ipaddress.ip_address(address)) is reach


@pytest.mark.parametrize("sender", list(Reach))
@pytest.mark.parametrize("address", ["93.184.216.34", "10.0.0.1", "127.0.0.1", "169.254.169.254"])
def test_rc_04_nobody_sends_us_further_in_than_they_are(sender: Reach, address: str) -> None:
    target = reach_of(ipaddress.ip_address(address))
    if target <= sender:
        check("host", address, sender)
    else:
        with pytest.raises(Unreachable, match=address):
            check("host", address, sender)


@pytest.mark.parametrize(
    "host", ["2852039166", "0xa9fea9fe", "169.254.169.254", "169.254.43518", "::ffff:a9fe:a9fe"]
)
def test_rc_04_an_address_is_recognised_in_every_spelling(host: str) -> None:
    with pytest.raises(Unreachable):
        check_literal(host, Reach.LOOPBACK)


@pytest.mark.parametrize("host", ["registry.example", "no..name"])
def test_rc_04_a_name_is_left_to_the_proxy(host: str) -> None:
    check_literal(host, Reach.PUBLIC)


def test_addresses_of_both_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        *[(socket.AF_INET6, 1, 6, "", (f"2606::{i}", 443, 0, 0)) for i in (1, 2, 3)],
        (socket.AF_INET, 1, 6, "", ("93.184.216.34", 443)),
        (socket.AF_INET, 1, 6, "", ("93.184.216.34", 443)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert [address for _, address in resolve("x", 443)] == ["2606::1", "93.184.216.34", "2606::2", "2606::3"]


def test_a_name_that_is_too_long_for_the_resolver_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        resolve("a" * 64 + ".example", 443)


PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("host", "environ", "expected"),
    [
        ("reg.example", {"HTTPS_PROXY": PROXY}, PROXY),
        ("reg.example", {"https_proxy": "proxy.example:3128"}, PROXY),
        ("reg.example", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        ("reg.example", {"ALL_PROXY": PROXY}, PROXY),
        ("reg.example", {"HTTP_PROXY": PROXY}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "REQUEST_METHOD": "GET"}, PROXY),
        ("localhost", {"HTTPS_PROXY": PROXY}, ""),
        ("127.0.0.1", {"HTTPS_PROXY": PROXY}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "other, reg.example"}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "example"}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": ".example"}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "*.example"}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "eg.example"}, PROXY),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "reg.example:443"}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "reg.example:5000"}, PROXY),
        ("10.1.2.3", {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, ""),
        ("10.1.2.3", {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.1.2.3"}, ""),
        ("10.1.2.3", {"HTTPS_PROXY": PROXY, "NO_PROXY": "11.0.0.0/8"}, PROXY),
        ("[fd00::1]", {"HTTPS_PROXY": PROXY, "NO_PROXY": "fd00::/8"}, ""),
        ("[fd00::1]", {"HTTPS_PROXY": PROXY, "NO_PROXY": "[fd00::1]:443"}, ""),
        ("[fd00::1]", {"HTTPS_PROXY": PROXY, "NO_PROXY": "fd00::1"}, ""),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "reg.example:https"}, PROXY),
        ("reg.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": ",, ,"}, PROXY),
        ("reg.example.", {"HTTPS_PROXY": PROXY, "NO_PROXY": ",, ,"}, PROXY),
        ("reg.example", {}, ""),
    ],
)
def test_f_27_proxies_are_those_of_the_environment(host: str, environ: dict[str, str], expected: str) -> None:
    assert proxy_for(Origin.parse("https", host), environ) == expected


def test_f_27_a_header_of_a_cgi_request_is_no_proxy() -> None:
    origin = Origin.parse("http", "reg.example")
    assert proxy_for(origin, {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}) == ""
    assert proxy_for(origin, {"http_proxy": PROXY, "REQUEST_METHOD": "GET"}) == PROXY
    assert proxy_for(origin, {"HTTP_PROXY": PROXY}) == PROXY


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host/x?sig=secret&n=5", "https://host/x?sig=…&n=5"),
        ("https://host:5000/x#secret", "https://host:5000/x"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        (
            "https://host/x?X-Amz-Signature=s&digest=sha256:0",
            "https://host/x?X-Amz-Signature=…&digest=sha256:0",
        ),
        ("https://host:bad/x?secret", "a malformed URL"),
        ("https://[bad/x?secret", "a malformed URL"),
    ],
)
def test_rc_18_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_rc_17_what_can_not_be_printed_is_written_out() -> None:
    assert printable("a\x1b\n\u202eé\ud800") == "a\\x1b\\x0a\\u202eé\\ud800"
    assert printable("x" * 600) == "x" * 500 + "…"


@pytest.mark.parametrize(
    "text",
    [
        "socks5://me:secret@proxy.example:1080",
        "https://me:secret@proxy.example",
        "http://me:secret@proxy.example:port",
        "http://me:secret@",
        "http://me:sec/ret@proxy.example",
    ],
)
def test_f_27_what_is_no_http_proxy_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(OciError) as caught:
        checked(text)
    assert "proxy" in str(caught.value)
    assert "sec" not in str(caught.value)
