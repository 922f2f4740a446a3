"""`Config.User` in an image's own accounts (image-spec, conversion.md)."""

from __future__ import annotations

import pytest

from ocitool.errors import InvalidContent
from ocitool.unpack.users import Accounts, User

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
broken line
app:x:1000:1001:App:/home/app:/bin/sh
app:x:2000:2000:second:/nowhere:/bin/sh
homeless:x:5:6:::
1234:x:7:8::/odd:
big:x:99999999999:1::/:/
"""
GROUP = b"""root:x:0:
wheel:x:10:root,app
app:x:1001:app
video:x:44:app,homeless
wheel:x:11:app
bad:x:y:app
"""
ACCOUNTS = Accounts.parse(PASSWD, GROUP)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", User(0, 0, (10,), "/root")),
        ("root", User(0, 0, (10,), "/root")),
        ("0", User(0, 0, (), "/root")),
        ("app", User(1000, 1001, (10, 11, 44), "/home/app")),
        ("app:video", User(1000, 44, (), "/home/app")),
        ("app:77", User(1000, 77, (), "/home/app")),
        ("homeless", User(5, 6, (44,), "/")),
        ("1000", User(1000, 1001, (), "/home/app")),
        ("1000:wheel", User(1000, 10, (), "/home/app")),
        ("1234", User(1234, 0, (), "/")),
        ("555:666", User(555, 666, (), "/")),
        ("app:", User(1000, 1001, (10, 11, 44), "/home/app")),
        (":44", User(0, 44, (), "/root")),
        ("4294967294", User(4294967294, 0, (), "/")),
    ],
)
def test_every_form_of_user_is_understood(wanted: str, expected: User) -> None:
    assert ACCOUNTS.find(wanted) == expected


@pytest.mark.parametrize(
    "wanted",
    [
        "nobody",
        "app:nogroup",
        "broken line",
        "big",
        "-1",
        "+5",
        "0x10",
        "٣",
        "4294967295",
        "1e3",
        "a:b:c",
        " app",
    ],
)
def test_a_user_that_is_not_there_is_an_error(wanted: str) -> None:
    with pytest.raises(InvalidContent):
        ACCOUNTS.find(wanted)


def test_an_image_without_accounts_runs_as_numbers() -> None:
    assert Accounts().find("") == User()
    assert Accounts().find("5:6") == User(5, 6)
    with pytest.raises(InvalidContent, match="no user 'app' in the image's /etc/passwd"):
        Accounts().find("app")


def test_accounts_that_are_not_text_are_read_all_the_same() -> None:
    accounts = Accounts.parse(b"\xff\xfe:x:5:5::/:\napp:x:6:6::/\xff:\n", b"\x80")
    assert accounts.find("app") == User(6, 6, (), "/\udcff")
