"""Basic authentication against an htpasswd file."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING

import pytest
from support.peers import call, require
from support.serve_registry import MemoryRepositories, registry

from ocitool.errors import InvalidContent, NotFound, Unsupported
from ocitool.serve import Htpasswd
from ocitool.serve.passwords import basic

if TYPE_CHECKING:
    from pathlib import Path


def _crypt(kind: str, password: str) -> str:
    require("openssl")
    return call("openssl", "passwd", kind, "-salt", "saltsalt", password).strip()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    require("htpasswd")
    path = tmp_path / "users"
    call("htpasswd", "-Bbc", "-C", "5", path, "ann", "right")
    call("htpasswd", "-Bb", "-C", "5", path, "bob", "pässwörd: 🔑")
    return path


def test_the_right_password_is_right_and_every_other_is_wrong(users: Path) -> None:
    known = Htpasswd(users)
    assert known.check("ann", "right")
    assert known.check("bob", "pässwörd: 🔑")
    for user, password in [
        ("ann", "wrong"),
        ("ann", ""),
        ("bob", "right"),
        ("cid", "right"),
        ("", ""),
        ("ann", "right\0"),
    ]:
        assert not known.check(user, password)


@pytest.mark.parametrize("kind", ["-5", "-6"])
def test_sha_crypt_is_known(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"ann:{_crypt(kind, 'right')}\n")
    assert Htpasswd(path).check("ann", "right")
    assert not Htpasswd(path).check("ann", "wrong")


@pytest.mark.parametrize(
    "line",
    [
        "ann:right",
        "ann:{SHA}fOtHNF6IoXG1Gy9S7Kgm8mPLUBY=",
        "ann:$apr1$saltsalt$qeWlyxCBeiY1vKJdPZVGB/",
        "ann:dGJ5BnNXAyNyc",
        "ann",
        ":$2y$05$abc",
        "ann:",
    ],
)
def test_weak_hashes_and_odd_lines_are_refused_with_their_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"# who may come in\n\n{line}\n")
    with pytest.raises(InvalidContent, match=r"line 3 of .*users") as caught:
        Htpasswd(path)
    assert "htpasswd -B" in caught.value.hint


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="users can't be read"):
        Htpasswd(tmp_path / "users")


def test_a_changed_file_counts_at_once(users: Path) -> None:
    known = Htpasswd(users)
    assert known.check("ann", "right")
    call("htpasswd", "-Bb", "-C", "5", users, "ann", "changed")
    assert not known.check("ann", "right")
    assert known.check("ann", "changed")
    call("htpasswd", "-D", users, "ann")
    assert not known.check("ann", "changed")


def test_who_was_right_once_is_not_made_to_wait_again(tmp_path: Path) -> None:
    path = tmp_path / "users"
    require("htpasswd")
    call("htpasswd", "-Bbc", "-C", "10", path, "ann", "right")
    known = Htpasswd(path)
    started = time.thread_time()
    assert known.check("ann", "right")
    first = time.thread_time() - started
    started = time.thread_time()
    for _ in range(10):
        assert known.check("ann", "right")
    assert (time.thread_time() - started) / 10 < first / 10


def test_not_everybody_is_remembered(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocitool.serve.passwords._REMEMBERED", 1)
    known = Htpasswd(users)
    for _ in range(3):
        assert known.check("ann", "right")
        assert known.check("bob", "pässwörd: 🔑")
        assert not known.check("ann", "pässwörd: 🔑")
        assert len(known._remembered) == 1


def test_a_system_without_libcrypt_is_told_so(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str | None) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", nothing)
    with pytest.raises(Unsupported, match="no libcrypt"):
        Htpasswd(users)


def test_a_hash_that_libcrypt_does_not_know_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("ann:$2y$99$abcdefghijklmnopqrstuv\n")
    with pytest.raises(Unsupported, match="line 1"):
        Htpasswd(path)


def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("")
    assert not Htpasswd(path).check("ann", "right")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic " + base64.b64encode(b"ann:right").decode(), ("ann", "right")),
        ("basic  " + base64.b64encode("änn:a:b".encode()).decode(), ("änn", "a:b")),
        ("Basic " + base64.b64encode(b":").decode(), ("", "")),
        ("Basic " + base64.b64encode(b"ann").decode(), None),
        ("Basic " + base64.b64encode(b"\xff:x").decode(), None),
        ("Basic !", None),
        ("Basic \xe9", None),
        ("Basic YW5u!OnJpZ2h0", None),
        ("Bearer abc", None),
        ("Bearer " + base64.b64encode(b"ann:right").decode(), None),
        ("", None),
    ],
)
def test_credentials_are_read_from_the_header(header: str, expected: tuple[str, str] | None) -> None:
    assert basic(header) == expected


def test_nothing_is_answered_to_whoever_has_no_password(users: Path) -> None:
    with registry(MemoryRepositories(), passwords=Htpasswd(users)) as served:
        for path in ("/v2/", "/v2/a/tags/list", "/metrics", "/v2/_catalog", "/none"):
            for said in (b"", b"Basic YW5uOndyb25n", b"Basic \xe9"):
                response = served.http.get(path, headers={b"authorization": said})
                assert response.status_code == 401
                assert response.headers["www-authenticate"].startswith('Basic realm="')
                assert response.json()["errors"][0]["code"] == "UNAUTHORIZED"
        assert served.http.get("/v2/", auth=("ann", "right")).status_code == 200
    assert [one.user for one in served.served if one.status == 200] == ["ann"]
    assert [one.failure for one in served.served if one.failure] == []


def test_a_body_without_a_password_is_not_read(users: Path) -> None:
    with registry(MemoryRepositories(), passwords=Htpasswd(users)) as served:
        response = served.http.put("/v2/a/manifests/x", content=os.urandom(1 << 20))
        assert response.status_code == 401
    assert served.served[0].received == 0
