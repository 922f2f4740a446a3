"""Maps of users and groups between a user namespace and the host (user_namespaces(7), subuid(5))."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ocitool.errors import InvalidContent, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

HELPERS: Final = ("newuidmap", "newgidmap")
_EVERYBODY: Final = 0xFFFFFFFF
_RANGE: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})")


class Range(NamedTuple):
    """`size` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read `INSIDE:OUTSIDE:SIZE`.

        Raises:
            InvalidContent: it is something else, or goes beyond the ids that there are.
        """
        match = _RANGE.fullmatch(text)
        numbers = [int(number) for number in match.groups()] if match else [0, 0, 0]
        made = cls(*numbers)
        if not made.size or max(made.inside, made.outside) + made.size > _EVERYBODY:
            raise InvalidContent(
                f"{text!r:.80} maps no ids: that takes INSIDE:OUTSIDE:SIZE, as 0:100000:65536"
            )
        return made

    def to_json(self) -> dict[str, int]:
        """As the runtime configuration has it."""
        return {"containerID": self.inside, "hostID": self.outside, "size": self.size}


@dataclass(frozen=True, slots=True)
class IdMap:
    """How a user namespace's users and groups are mapped."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Who a user and a group of the namespace are on the host.

        Raises:
            Unsupported: one of them does not exist in the namespace.
        """
        return _outside("user", uid, self.uids), _outside("group", gid, self.gids)

    def inside(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Who a user and a group of the host are in the namespace; None where one does not exist there."""
        user, group = (
            _moved(number, ((part.outside, part.inside, part.size) for part in parts))
            for number, parts in ((uid, self.uids), (gid, self.gids))
        )
        return None if user is None or group is None else (user, group)

    @classmethod
    def only_me(cls) -> IdMap:
        """Root is whoever runs this, and nobody else exists: what every kernel allows without a helper."""
        return cls((Range(0, os.geteuid(), 1),), (Range(0, os.getegid(), 1),))

    @classmethod
    def delegated(cls) -> IdMap | None:
        """Root is whoever runs this, and the others are the ids that the administrator has given them.

        Returns:
            None where there are none, or nothing to map them with.
        """
        if not all(map(shutil.which, HELPERS)):
            return None
        me = cls.only_me()
        uids, gids = (subordinate(Path("/etc", name)) for name in ("subuid", "subgid"))
        return cls(me.uids + uids, me.gids + gids) if uids and gids else None

    @property
    def single(self) -> bool:
        """Whether one user and one group are all there is."""
        return all(sum(part.size for part in parts) == 1 for parts in (self.uids, self.gids))

    def uids_json(self) -> list[dict[str, int]]:
        """As the runtime configuration has them."""
        return [part.to_json() for part in self.uids]

    def gids_json(self) -> list[dict[str, int]]:
        """As the runtime configuration has them."""
        return [part.to_json() for part in self.gids]


def _outside(what: str, number: int, ranges: tuple[Range, ...]) -> int:
    found = _moved(number, ranges)
    if found is None:
        raise Unsupported(f"a file of the image belongs to {what} {number}, whom the mapped ids have not got")
    return found


def _moved(number: int, ranges: Iterable[tuple[int, int, int]]) -> int | None:
    """Where ranges of `(from, to, size)` move a number; None where it is in none of them."""
    return next((to + number - start for start, to, size in ranges if 0 <= number - start < size), None)


def gives_owners() -> bool:
    """Whether this process may give files to others: it is root, and others exist where it is root."""
    return os.geteuid() == 0 and min(_existing("uid"), _existing("gid")) > 1


def is_host_root() -> bool:
    """Whether this process is root of the host, and not of a user namespace."""
    return os.geteuid() == 0 and _existing("uid") == _EVERYBODY


def _existing(kind: str) -> int:
    """How many users or groups there are in the user namespace of this process."""
    try:
        lines = Path(f"/proc/self/{kind}_map").read_text("ascii").splitlines()
    except OSError:
        return _EVERYBODY  # no /proc, or no user namespaces
    return sum(int(line.split()[2]) for line in lines)


def subordinate(path: Path) -> tuple[Range, ...]:
    """The ranges that a file of subuid(5)'s form gives to whoever runs this, mapped from 1 on."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ()
    owners = {str(os.geteuid()), _name()}
    ranges: list[Range] = []
    inside = 1
    for line in lines:
        owner, _, numbers = line.strip().partition(":")
        start, _, size = numbers.partition(":")
        if owner in owners and start.isdecimal() and size.isdecimal() and int(size):
            ranges.append(Range(inside, int(start), int(size)))
            inside += int(size)
    return tuple(ranges)


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""
