"""Network devices of the host that a container gets (config-linux.md, "Network Devices"), by rtnetlink(7).

A device goes to the container's network namespace under its new name, with the addresses that it had, and up.
What becomes of it afterwards is the kernel's business: it "MUST NOT" be fetched back.
"""

from __future__ import annotations

import posix
import struct

from ocitool.errors import InvalidContent, RunError

from .kernel import CLOEXEC
from .namespaces import NETWORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .kernel import Kernel

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, changed flags
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3
_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 18, 20, 22
_REQUEST, _ACKNOWLEDGE, _DUMP, _CREATE, _EXCLUSIVE = 1, 4, 0x300, 0x400, 0x200
_NAME_OF_LINK, _NAMESPACE_FD = 3, 28
_FLAGS_OF_ADDRESS = 8
_KEPT = (1, 2, 4, 9, 11)  # address, local, broadcast, priority of the route, protocol
_PERMANENT = 0x80
_OF_THE_HOLDER = 0x02 | 0x200 | 0x400 | 0x100  # nodad, noprefixroute, mcautojoin, managetempaddr
_UP = 1
_LONGEST_NAME = 15
_ANSWER_BYTES = 1 << 16


def check(devices: Mapping[str, Any]) -> None:
    """Check the names, which are the kernel's (dev_valid_name): no path, no space, at most 15 bytes.

    Raises:
        InvalidContent: one of them is not a device's name, or two devices get the same one.
    """
    taken = set()
    for name, device in devices.items():
        new = (device or {}).get("name") or name
        for each in (name, new):
            if each in ("", ".", "..") or len(each.encode()) > _LONGEST_NAME or set(each) & set("/: \t\n\0"):
                raise InvalidContent(f"linux.netDevices: {each!r} is not the name of a network device")
        if new in taken and "%d" not in new:
            raise InvalidContent(f"linux.netDevices: two devices get the name {new!r}")
        taken.add(new)


def move(kernel: Kernel, pid: int, devices: Mapping[str, Any]) -> None:
    """Give devices of our own network namespace to that of a process.

    "The runtime MUST check if moving the network interface to the container namespace is possible": all are
    looked at before the first one goes.

    Raises:
        RunError: a device is not there, its new name is taken, or the kernel refuses.
    """
    here = posix.open("/proc/self/ns/net", posix.O_RDONLY | CLOEXEC)
    there = posix.open(f"/proc/{pid}/ns/net", posix.O_RDONLY | CLOEXEC)
    if posix.fstat(here).st_ino == posix.fstat(there).st_ino:
        raise RunError("network devices: the container has the network namespace that they are in")
    ours = _Socket()
    kernel.setns(there, NETWORK)
    try:
        theirs = _Socket()
    finally:
        kernel.setns(here, NETWORK)
    try:
        links, taken = ours.links(), theirs.links()
        for name, device in devices.items():
            new = (device or {}).get("name") or name
            if name not in links:
                raise RunError(f"network device {name}: the host has none of this name")
            if new in taken:
                raise RunError(f"network device {name}: the container has a {new} already")
        for name, device in devices.items():
            _move(ours, theirs, there, links[name], (device or {}).get("name") or name)
    except OSError as exc:
        raise RunError(f"network devices: {exc.strerror}") from exc
    finally:
        for fd in (here, there, ours.fd, theirs.fd):
            posix.close(fd)


def _move(ours: _Socket, theirs: _Socket, there: int, index: int, new: str) -> None:
    # "The runtime MUST preserve existing network interface attributes, including all permanent IP addresses
    # (IFA_F_PERMANENT flag) of any family with global scope (RT_SCOPE_UNIVERSE value)". The kernel drops
    # addresses with the move, and keeps the rest.
    kept = list(ours.addresses(index))
    before = set(theirs.links().values())
    target = _attribute(_NAMESPACE_FD, struct.pack("=i", there))
    ours.ask(_NEW_LINK, _ACKNOWLEDGE, _LINK.pack(0, 0, index, 0, 0) + target + _name(new))
    # A template ("eth%d") has become a name, and where the number was taken, it is another one.
    (index,) = set(theirs.links().values()) - before
    for family, prefix, attributes in kept:
        theirs.ask(
            _NEW_ADDRESS,
            _ACKNOWLEDGE | _CREATE | _EXCLUSIVE,
            _ADDRESS.pack(family, prefix, _PERMANENT, 0, index) + attributes,
        )
    # "The runtime MUST set the network device state to "up" after moving it".
    theirs.ask(_NEW_LINK, _ACKNOWLEDGE, _LINK.pack(0, 0, index, _UP, _UP))


class _Socket:
    """A netlink socket, which stays in the network namespace where it was made."""

    def __init__(self) -> None:
        import _socket

        made = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, 0)
        made.bind((0, 0))
        self.fd = made.detach()

    def links(self) -> dict[str, int]:
        """The index of each device, by name."""
        found = {}
        for body in self.ask(_GET_LINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0)):
            attributes = dict(_attributes(body[_LINK.size :]))
            found[attributes[_NAME_OF_LINK].rstrip(b"\0").decode(errors="replace")] = _LINK.unpack_from(body)[
                2
            ]
        return found

    def addresses(self, wanted: int) -> Iterator[tuple[int, int, bytes]]:
        """Family, prefix length and attributes of a device's addresses that are permanent and global."""
        for body in self.ask(_GET_ADDRESS, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, flags, scope, index = _ADDRESS.unpack_from(body)
            attributes = dict(_attributes(body[_ADDRESS.size :]))
            if _FLAGS_OF_ADDRESS in attributes:
                (flags,) = struct.unpack("=I", attributes[_FLAGS_OF_ADDRESS])
            if index == wanted and scope == 0 and flags & _PERMANENT:
                kept = b"".join(_attribute(kind, attributes[kind]) for kind in _KEPT if kind in attributes)
                own = struct.pack("=I", _PERMANENT | flags & _OF_THE_HOLDER)
                yield family, prefix, kept + _attribute(_FLAGS_OF_ADDRESS, own)

    def ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send a request, and return the answers' bodies.

        Raises:
            OSError: the kernel's answer is an error.
        """
        posix.write(self.fd, _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, 0, 0) + body)
        found: list[bytes] = []
        while True:
            data = posix.read(self.fd, _ANSWER_BYTES)
            while data:
                size, answer, _, _, _ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : size], data[_aligned(size) :]
                if answer == _ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    if code:
                        raise OSError(-code, posix.strerror(-code))
                    return found
                if answer == _DONE:
                    return found
                found.append(body)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : size]
        data = data[_aligned(size) :]


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(_aligned(len(value)) - len(value))
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def _name(name: str) -> bytes:
    return _attribute(_NAME_OF_LINK, name.encode() + b"\0")


def _aligned(size: int) -> int:
    return (size + 3) & ~3
