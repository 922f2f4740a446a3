"""Users: what `Config.User` means in an image's own /etc/passwd and /etc/group, never the host's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ocitool.errors import InvalidContent

_MAX_ID: Final = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class User:
    """Whom a process runs as.

    Attributes:
        uid: the user's number.
        gid: the primary group's number.
        additional: the supplementary groups' numbers, ascending.
        home: the home directory.
    """

    uid: int = 0
    gid: int = 0
    additional: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of one image, in the files' order: the first of two equal names counts, as in libc."""

    users: tuple[tuple[str, int, int, str], ...] = ()
    groups: tuple[tuple[str, int, tuple[str, ...]], ...] = field(default=())

    @classmethod
    def parse(cls, passwd: bytes, group: bytes) -> Accounts:
        """Read passwd(5) and group(5); lines that are not of their form are passed over, as libc does."""
        users = [
            (fields[0], *ids, fields[5])
            for fields in _lines(passwd)
            if len(fields) >= 6 and (ids := _numbers(fields[2:4]))
        ]
        groups = []
        for fields in _lines(group):
            if len(fields) >= 3 and (ids := _numbers(fields[2:3] * 2)):
                members = fields[3].split(",") if len(fields) > 3 else []
                groups.append((fields[0], ids[0], tuple(members)))
        return cls(tuple(users), tuple(groups))

    def find(self, wanted: str) -> User:
        """The user that `Config.User` names: `user`, `uid`, `user:group`, `uid:gid`, `uid:group`, `user:gid`.

        Raises:
            InvalidContent: there is no such user or group.
        """
        user, _, group = wanted.partition(":")
        found = self._user(user or "0")  # an image that names nobody means root
        # conversion.md: "The converter SHOULD NOT modify `process.user.additionalGids` if the value of `user`
        # in `Config.User` is numeric or if `Config.User` specifies a group."
        additional = () if group or _number(user) is not None else found.additional
        return User(found.uid, self.group(group) if group else found.gid, additional, found.home)

    def group(self, group: str) -> int:
        """The number of a group, by its name or number.

        Raises:
            InvalidContent: there is no such group.
        """
        number = _number(group)
        if number is not None:
            return number
        for name, gid, _ in self.groups:
            if name == group:
                return gid
        raise InvalidContent(f"there is no group {group!r:.80} in the image's /etc/group")

    def _user(self, user: str) -> User:
        number = _number(user)
        for name, uid, gid, home in self.users:
            if (uid == number) if number is not None else (name == user):
                return User(uid, gid, self._memberships(name, gid), home or "/")
        if number is None:
            # conversion.md: "If `Config.User` does not correspond to a user in the container's context, the
            # converter MUST return an error."
            raise InvalidContent(f"there is no user {user!r:.80} in the image's /etc/passwd")
        # "If the values of `user` or `group` in `Config.User` are numeric (`uid` or `gid`) then the values
        # MUST be copied verbatim".
        return User(number)

    def _memberships(self, user: str, primary: int) -> tuple[int, ...]:
        return tuple(sorted({gid for _, gid, members in self.groups if user in members and gid != primary}))


def _lines(text: bytes) -> list[list[str]]:
    lines = text.decode("utf-8", "surrogateescape").splitlines()
    return [line.split(":") for line in lines if line and not line.startswith("#")]


def _numbers(fields: list[str]) -> tuple[int, int] | None:
    first, second = (_number_or_none(text) for text in fields)
    return None if first is None or second is None else (first, second)


def _number_or_none(text: str) -> int | None:
    # Not `isdecimal`: Unicode has digits that no other reader of the file takes for one.
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None


def _number(text: str) -> int | None:
    number = _number_or_none(text)
    if number is None and text.isascii() and text.isdecimal():
        raise InvalidContent(f"{text:.40} is no user or group: they go from 0 to {_MAX_ID}")
    return number
